"""Reads detectron2's configs and checkpoints, and builds its models for inference without detectron2.

The modules here are twins of detectron2's: the same class, attribute, submodule and state_dict names, so that
what is written against one works with the other.
"""

from .build import build_model, load_model
from .checkpoint import StateDict, load_into, load_state_dict
from .config import Config, load_config

__all__ = ["Config", "StateDict", "build_model", "load_config", "load_into", "load_model", "load_state_dict"]

"""Reads detectron2's configs and checkpoints, and builds its models for inference without detectron2.

The modules here are twins of detectron2's: the same class, attribute, submodule and state_dict names, so that
what is written against one works with the other.
"""

from .backbone import Backbone
from .build import build_model, build_resnet_backbone, load_model
from .checkpoint import StateDict, load_into, load_state_dict
from .config import Config, load_config
from .fpn import FPN, LastLevelMaxPool, LastLevelP6P7
from .layers import ShapeSpec
from .register import register
from .rpn import RPN

__all__ = [
    "FPN",
    "RPN",
    "Backbone",
    "Config",
    "LastLevelMaxPool",
    "LastLevelP6P7",
    "ShapeSpec",
    "StateDict",
    "build_model",
    "build_resnet_backbone",
    "load_config",
    "load_into",
    "load_model",
    "load_state_dict",
    "register",
]

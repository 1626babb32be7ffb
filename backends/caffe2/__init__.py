"""Caffe2: lowering to its operators, emitting nets, running them without Caffe2, and reading them back."""

from . import dialect
from .emit import Caffe2Nets, emit
from .load import load, load_nets
from .runtime import Caffe2Runtime

__all__ = ["Caffe2Nets", "Caffe2Runtime", "dialect", "emit", "load", "load_nets"]

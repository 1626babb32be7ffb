from . import dialect
from .emit import Caffe2Nets, emit
from .load import load, load_nets
from .runtime import Caffe2Runtime

__all__ = ["Caffe2Nets", "Caffe2Runtime", "dialect", "emit", "load", "load_nets"]

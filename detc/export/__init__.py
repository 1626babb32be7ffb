"""The API that users of `detectron2.export` know: the same names, arguments and behaviour.

    from detc.export import add_export_config, Caffe2Tracer

The models may be detc's own or live ones of detectron2, which need not be installed.
"""

from detc.caffe2_model import Caffe2Model

from .caffe2_tracer import Caffe2Tracer
from .config import add_export_config

__all__ = ["Caffe2Model", "Caffe2Tracer", "add_export_config"]

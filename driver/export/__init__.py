"""The API that users of `detectron2.export` know: the same names, arguments and behaviour.

    from detc.export import add_export_config, Caffe2Tracer

The models may be detc's own or live ones of detectron2, which need not be installed.
"""

from detc.backends.caffe2.model import Caffe2Model
from detc.backends.torchscript import dump_torchscript_IR

from .caffe2_tracer import Caffe2Tracer
from .config import add_export_config
from .schemas import Schema, flatten_to_tuple, schema_from_json
from .scripting import scripting_with_instances
from .tracing_adapter import TracingAdapter

__all__ = [
    "Caffe2Model",
    "Caffe2Tracer",
    "Schema",
    "TracingAdapter",
    "add_export_config",
    "dump_torchscript_IR",
    "flatten_to_tuple",
    "schema_from_json",
    "scripting_with_instances",
]

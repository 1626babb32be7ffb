"""The target `caffe2`."""

from ..target import RuntimeChoice, Target

CAFFE2 = Target(
    name="caffe2",
    level="caffe2",
    suffix="",
    passes="detc.backends.caffe2.pipeline:caffe2_pipeline",
    emit="detc.backends.caffe2.model:Caffe2Model.emit",
    runtimes=(
        RuntimeChoice(
            "interpreter", "detc.backends.caffe2.model:Caffe2Model.load_detector", "detc's interpreter"
        ),
    ),
    options=frozenset({"batch"}),
    read="detc.backends.caffe2.load:load",
    contains="model.pb",
    order=4,
)

"""The target `onnx`."""

from ..target import RuntimeChoice, Target

ONNX = Target(
    name="onnx",
    level="onnx",
    suffix=".onnx",
    passes="detc.backends.onnx.pipeline:onnx_pipeline",
    emit="detc.backends.onnx.artifact:OnnxArtifact",
    runtimes=(
        RuntimeChoice("onnxruntime", "detc.backends.onnx.runtime:OnnxRuntimeModel"),
        RuntimeChoice(
            "openvino", "detc.backends.onnx.openvino:OpenVinoModel", "OpenVINO", requires="openvino"
        ),
    ),
    read="detc.backends.onnx.load:load",
    order=1,
)

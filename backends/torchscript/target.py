"""The targets `torchscript` and `torch-export`: one level of the IR, two formats."""

from ..target import RuntimeChoice, Target

TORCHSCRIPT = Target(
    name="torchscript",
    level="torchscript",
    suffix=".ts",
    passes="detc.backends.torchscript.pipeline:torchscript_pipeline",
    emit="detc.backends.torchscript.artifacts:TorchScriptArtifact",
    runtimes=(RuntimeChoice("torch.jit", "detc.backends.torchscript.runtime:TorchScriptRuntime"),),
    options=frozenset({"dtype"}),
    order=2,
)
TORCH_EXPORT = Target(
    name="torch-export",
    level="torchscript",
    suffix=".pt2",
    passes="detc.backends.torchscript.pipeline:torchscript_pipeline",
    emit="detc.backends.torchscript.artifacts:ExportedArtifact",
    runtimes=(RuntimeChoice("torch.export", "detc.backends.torchscript.program:ExportedRuntime"),),
    options=frozenset({"dtype"}),
    runs_code=True,
    order=3,
)

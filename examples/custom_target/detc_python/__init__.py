"""The target `python`: a detector as one file of plain torch code, which runs without detc.

detc imports this module to learn of the target, in every command. So it names the target's parts, which are imported
when they are used.
"""

from detc import RuntimeChoice, Target

PYTHON = Target(
    name="python",
    level="torchscript",  # aten's and torchvision's operators, and a few functions with loops
    suffix=".py",
    passes="detc.backends.torchscript.pipeline:torchscript_pipeline",
    emit="detc_python.artifact:PythonArtifact",
    runtimes=(RuntimeChoice("torch", "detc_python.artifact:load"),),
    options=frozenset({"dtype"}),
    runs_code=True,
)

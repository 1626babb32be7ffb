"""The command `demo`: the bundled model through all stages, compared with the original, with something to look at."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path

from PIL import Image

from detc.backends.images import model_input, read_image, save_image
from detc.backends.target import load_artifact
from detc.frontend import load_model
from detc.ir import InputError
from detc.ir.structures import Instances
from detc.passes import DumpIR

from ..api import pipeline
from ..check.parity import check_parity, parity_blocks
from ..show.detections import detection_table, to_json, write_json
from ..show.terminal import Stages, output, print_blocks
from .export import compile_in_stages

MODEL = "mask_rcnn_R_50_FPN"
CLASS_NAMES = ("circle", "square", "triangle")
SCENES = ("shapes.png", "nothing.png")
"""A scene with several objects, and one without any."""
MIN_SCORE = 0.9
"""The model gives detections from 0.05 on; this is what it is sure of."""


def demo(folder: Path, stages: Stages) -> int:
    """Compile the bundled Mask R-CNN, run it, compare it with the model, and write picture, ONNX file, JSON and IR into
    the folder. Returns 1 if it does not agree with the model, else 0. Without the extra `pictures` none is drawn.

    Errors:
        InputError: the folder cannot be made or written into.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write into {folder}: {error.strerror}") from None
    passes = pipeline("onnx", postprocess=True)
    with as_file(files("detc") / "data") as data:
        with stages.stage("load the model"):
            model = load_model(data / MODEL / "config.yaml", data / MODEL / "model_final.pth")
        images = {name: read_image(data / "scenes" / name) for name in SCENES}
    artifact = compile_in_stages(model, "onnx", passes, CLASS_NAMES, [DumpIR(folder / "ir")], stages)
    with stages.stage("write the file"):
        artifact.save(folder / "model.onnx")
    with stages.stage("load the file in onnxruntime"):
        detector = load_artifact(folder / "model.onnx")
    scene = images[SCENES[0]]
    with stages.stage("run it on a scene"):
        instances = detector.predict(scene)
    shown = instances[instances.scores >= MIN_SCORE]
    drawn = _draw(scene, shown, detector.class_names, folder / "annotated.png", stages)
    write_json(to_json(instances, detector.class_names, SCENES[0]), folder / "detections.json")
    with stages.stage("compare with the model"):
        inputs = {name: model_input(image, detector.metadata) for name, image in images.items()}
        rows = check_parity(model, detector, inputs)

    output().print(f"{MODEL}, trained in detectron2 to find {', '.join(CLASS_NAMES)}, compiled to ONNX")
    weights = sum(parameter.numel() for parameter in model.parameters())
    written = {
        "annotated.png": drawn,
        "detections.json": "the same as JSON",
        "model.onnx": f"{artifact.nodes} nodes, {weights / 1e6:.1f} million weights",
        "ir": f"the IR as captured, and after each of {len(passes)} passes",
    }
    print_blocks(
        stages.table(),
        detection_table(
            shown, len(instances), detector.class_names, f"{SCENES[0]}, score {MIN_SCORE} or more"
        ),
        *parity_blocks(rows, "onnxruntime"),
        "\n".join(f"{folder / name}: {what}" for name, what in written.items()),
    )
    return 0 if all(row.report.agrees for row in rows) else 1


def _draw(
    scene: Image.Image, instances: Instances, class_names: Sequence[str], path: Path, stages: Stages
) -> str:
    """Write the picture, if the extra for it is installed. Returns what there is to say about it."""
    try:
        from ..show.picture import draw  # noqa: PLC0415  (an extra)
    except InputError as missing:
        return f"not written: {missing}"
    with stages.stage("draw the picture"):
        save_image(draw(scene, instances, class_names), path)
    return "the scene with what was found"

"""What is measured in a process of its own: `python -m benchmarks.worker TASK ...` prints one line of JSON.

A fresh process shares no warm caches with another one, and its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import models
from .report import THREADS

LIMIT_S = 1800
"""The longest that one task may take."""


class TaskError(RuntimeError):
    """A task failed; the message is the last line of what it wrote."""


def measure(task: str, *arguments: str) -> dict[str, Any]:
    """Run a task in a process of its own; see the functions below for what they return.

    Errors:
        TaskError: it failed.
    """
    command = [sys.executable, "-m", "benchmarks.worker", task, *arguments]
    folder = Path(__file__).resolve().parent.parent
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise TaskError(f"{task}: {lines[-1] if lines else f'exit status {done.returncode}'}")
    return json.loads(done.stdout.splitlines()[-1])


class Stopwatch:
    """Stages of a task: wall seconds and CPU seconds of each."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = {}
        self.cpu: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall[name] = time.perf_counter() - wall
        self.cpu[name] = time.process_time() - cpu


def peak_bytes() -> int:
    """The most memory that this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def compile_ours(options: argparse.Namespace) -> dict[str, Any]:
    """`detc.compile(...)` and `save`, by stages.

    The memory is the peak less what the imports had taken: the model's weights count, and so does building the model.
    """
    import onnx  # noqa: F401
    import torchvision  # noqa: F401

    from detc.api import emit, pipeline
    from detc.frontend import capture

    baseline = peak_bytes()
    model = models.MODELS[options.model]()
    if options.weights:
        models.with_peer_weights(model, models.peer(options.weights))
    watch = Stopwatch()
    # The lines of `detc.compile`.
    with watch.stage("capture"):
        graph = capture(model)
    with watch.stage("passes"):
        passes = pipeline("onnx", postprocess=not options.raw, masks="roi" if options.raw else "pasted")
        lowered = passes.run(graph, verify=not options.no_verify)
    with watch.stage("emit"):
        artifact = emit(lowered)
        artifact.save(options.output)
    peak = peak_bytes()
    weights = sum({t.data_ptr(): t.numel() * t.element_size() for t in model.state_dict().values()}.values())
    return {
        "wall": watch.wall,
        "cpu": watch.cpu,
        "nodes": _count_nodes(options.output),
        "memory": (peak - baseline) / weights,
        "weights_mb": weights / 1e6,
    }


def capture_backbones(options: argparse.Namespace) -> dict[str, Any]:
    """CPU seconds that tracing torchvision's `vit_b_16`, its 12 blocks, takes, and then that of its `swin_t`."""
    from torchvision.models import swin_t, vit_b_16

    from detc.ir import Builder, Graph, TensorType, symbol
    from detc.ir.tracing import trace

    class Blocks(nn.Module):
        """The blocks for any number of tokens."""

        def __init__(self) -> None:
            super().__init__()
            self.layers = vit_b_16().encoder.layers

        def forward(self, maps: torch.Tensor) -> torch.Tensor:
            tokens: torch.Tensor = self.layers(maps.flatten(2).transpose(1, 2))
            return tokens.transpose(1, 2).reshape(maps.shape)

    def seconds(model: nn.Module, channels: int) -> float:
        graph = Graph("backbone")
        size = symbol("N"), channels, symbol("H", 32), symbol("W", 32)
        images = graph.add_input("images", TensorType(torch.float32, size))
        start = time.process_time()
        trace(Builder(graph), model.eval(), (images,), root=model, path="")
        return time.process_time() - start

    return {"vit": seconds(Blocks(), 768), "swin": seconds(swin_t().features, 3)}


def export_peer(options: argparse.Namespace) -> dict[str, Any]:
    """`torch.onnx.export` of torchvision's model by the TorchScript exporter, which traces a picture."""
    import onnx  # noqa: F401

    baseline = peak_bytes()
    model = models.peer(options.weights)
    picture = models.peer_image(models.image())
    warnings.simplefilter("ignore")
    watch = Stopwatch()
    with watch.stage("export"):
        torch.onnx.export(model, ([picture],), options.output, opset_version=17, dynamo=False, verbose=False)
    peak = peak_bytes()
    weights = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    return {
        "wall": watch.wall,
        "cpu": watch.cpu,
        "nodes": _count_nodes(options.output),
        "memory": (peak - baseline) / weights,
    }


def try_dynamo(options: argparse.Namespace) -> dict[str, Any]:
    """Whether torch's current exporter takes torchvision's model, and what it says if not."""
    # Without this package the exporter fails on every model, which would say nothing about this one.
    import onnxscript  # noqa: F401

    model = models.peer(options.weights)
    picture = models.peer_image(models.image())
    warnings.simplefilter("ignore")
    started = time.perf_counter()
    try:
        torch.onnx.export(model, ([picture],), options.output, dynamo=True, verbose=False)
    except Exception as error:  # whatever it raises is the result
        cause = error.__cause__ or error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        lines = [line for line in str(cause).splitlines() if line.strip()] or [""]
        return {"error": f"{type(cause).__name__}: {lines[0].strip()}", "s": time.perf_counter() - started}
    return {"error": None, "s": time.perf_counter() - started}


def weights(options: argparse.Namespace) -> dict[str, Any]:
    """Make the peer's weights, and write them."""
    torch.save(models.peer().state_dict(), options.output)
    return {}


def _count_nodes(path: str) -> int:
    import onnx

    def count(graph: onnx.GraphProto) -> int:
        inner = [a for node in graph.node for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
        return len(graph.node) + sum(count(a.g) for a in inner)

    return count(onnx.load(path).graph)


TASKS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "compile": compile_ours,
    "capture-backbones": capture_backbones,
    "export-peer": export_peer,
    "try-dynamo": try_dynamo,
    "weights": weights,
}


def main() -> None:
    """Run the task that the command line names."""
    from .caffe2 import caffe2_latency, compile_caffe2
    from .latency import latency_full, latency_small
    from .torchscript import torchscript_latency

    tasks = {
        **TASKS,
        "latency": latency_full,
        "latency-small": latency_small,
        "torchscript-latency": torchscript_latency,
        "compile-caffe2": compile_caffe2,
        "caffe2-latency": caffe2_latency,
    }
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=list(tasks))
    parser.add_argument("--model", choices=list(models.MODELS), default=models.FULL)
    parser.add_argument("--output", default="")
    parser.add_argument("--weights", default="")
    parser.add_argument("--ours", default="")
    parser.add_argument("--peer", default="")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--raw", action="store_true", help="without postprocessing")
    parser.add_argument("--no-verify", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    print(json.dumps(tasks[options.task](options)))


if __name__ == "__main__":
    main()

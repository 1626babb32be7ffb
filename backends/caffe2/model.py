"""A detector as a pair of Caffe2 nets: the artifact of the target `caffe2`, and detectron2's class of that name."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from detc.ir import Graph, InputError, Node, TensorType, Value, run
from detc.ir.files import atomic_write

from ..arrays import batch_images
from ..claims import check_metadata
from ..detector import Artifact
from . import Caffe2Nets, Caffe2Runtime, emit, load_nets
from .blobs import Caffe2Detections, images_per_run
from .load import net_files
from .proto import NetDef
from .read import Source, as_net, read_net


class Caffe2Model(Artifact, nn.Module):
    """A pair of Caffe2 nets that is called as the detector was, and runs without Caffe2.

        model = Caffe2Tracer(cfg, detector, None).export_caffe2()
        model([{"image": image}])  # [{"instances": Instances}]
        model.save_protobuf("net")
        model = Caffe2Model.load_protobuf("net")

    It also takes nets that detectron2's own exporter wrote. Source of the interface: detectron2, `export/api.py`.

    Attributes:
        predict_net: the NetDef that takes `data` f32[N,C,H,W], `im_info` f32[N,3] and the weights, and gives the
            detections.
        init_net: the NetDef that makes the weights.
        graph: both as a graph of the level `caffe2`.
        metadata: what the nets say about themselves.
    """

    def __init__(
        self, predict_net: Source, init_net: Source, *, graph: Graph | None = None, name: str = "the net"
    ) -> None:
        """Take the nets: NetDef messages of any protobuf library, or bytes.

        `graph` is the two as a graph where there is one already; `name` is what messages call the model.

        Errors:
            InputError: a net is none, or the two do not fit together.
            UnsupportedError: operators that are not known; all of them are listed.
        """
        nn.Module.__init__(self)
        self.eval()
        self.nets = Caffe2Nets(as_net(predict_net), as_net(init_net))
        self.graph = load_nets(self.predict_net, self.init_net) if graph is None else graph
        self.metadata = {"size_divisibility": 0, **self.graph.metadata}
        self._name = name
        check_metadata(self.metadata, name)

    @staticmethod
    def emit(graph: Graph) -> Caffe2Model:
        """The model of a graph that was lowered to Caffe2."""
        nets = emit(graph)
        return Caffe2Model(nets.predict_net, nets.init_net, graph=graph, name="the model")

    @staticmethod
    def load_protobuf(dir: str | os.PathLike[str]) -> Caffe2Model:
        """The model in a folder that `save_protobuf` or detectron2 wrote: model.pb and model_init.pb.

        Nothing of it is executed, and nothing unpickled.

        Errors:
            InputError: a file is missing, truncated or no net; see `Caffe2Model`.
            UnsupportedError: operators that are not known; all of them are listed.
        """
        predict, init = net_files(dir)
        return Caffe2Model(read_net(predict), read_net(init), name=os.fspath(dir))

    @staticmethod
    def load_detector(dir: str | os.PathLike[str]) -> Caffe2Model:
        """`load_protobuf`, of nets that must be a detector's.

        Errors:
            InputError: as `load_protobuf`, or the nets are not a detector's.
        """
        model = Caffe2Model.load_protobuf(dir)
        _ = model.runtime  # made by the first call otherwise, which is late for saying so
        return model

    @property
    def predict_net(self) -> NetDef:
        """The net that is run for each batch."""
        return self.nets.predict_net

    @property
    def init_net(self) -> NetDef:
        """The net that is run once."""
        return self.nets.init_net

    @cached_property
    def runtime(self) -> Caffe2Detections:  # type: ignore[override]  # made when first asked for
        """The nets in the interpreter, on the CPU, and what makes detections of their outputs.

        Errors:
            InputError: it is of a meta-architecture that is not known, or not what it says it is.
        """
        return Caffe2Detections(Caffe2Runtime(self.graph), self._name)

    @property
    @override
    def nodes(self) -> int:
        """How many operators the predict net has."""
        return len(self.predict_net.op)

    @override
    def extra_repr(self) -> str:
        """What stands between the brackets when it is printed."""
        return f"{self.metadata.get('meta_architecture', 'GeneralizedRCNN')}, {self.nodes} operators"

    def save_protobuf(self, output_dir: str | os.PathLike[str]) -> None:
        """Write model.pb, model_init.pb and, to be read by people, model.pbtxt into a folder, made if need be.

        Errors:
            InputError: a net is larger than a protobuf can be, or the folder cannot be written.
        """
        self.nets.save_protobuf(output_dir)

    def save_graph(
        self, output_file: str | os.PathLike[str], inputs: Sequence[Mapping[str, Any]] | None = None
    ) -> None:
        """Draw the predict net into an SVG file: operators by kind, tensors with their types, weights in their
        operators' boxes.

        With `inputs`, as the model takes them, the net is run, and every tensor is drawn with the shape that it had.

        Errors:
            InputError: the file's name does not end in .svg, or it cannot be written; the extra `report` is not
                installed; the inputs are no images, or the net does not take them.
        """
        if Path(output_file).suffix.lower() != ".svg":
            raise InputError(f"the graph is drawn as SVG: {os.fspath(output_file)} should end in .svg")
        from .drawing import draw_graph  # noqa: PLC0415  (an extra)

        # Loaded from the nets, values are called as the blobs are.
        graph = load_nets(self.predict_net, self.init_net)
        types = {value: str(value.type) for value in graph.values()}
        if inputs is None:
            svg = draw_graph(graph, types)
        else:
            feed = batch_images(inputs, int(self.metadata["size_divisibility"]))
            images = images_per_run(graph)
            rows = torch.arange(images).clamp(max=len(inputs) - 1)
            types |= _run_types(graph, {v.name: feed[v.name][rows] for v in graph.inputs if v.name in feed})
            svg = draw_graph(graph, types, f"as run on {images} image{'s' if images > 1 else ''}")
        with atomic_write(output_file) as file:
            file.write(svg.encode())

    @override
    def save(self, path: str | os.PathLike[str]) -> None:
        """`save_protobuf` under the name that all artifacts have."""
        self.save_protobuf(path)


def _run_types(graph: Graph, inputs: Mapping[str, Tensor]) -> dict[Value, str]:
    """The type of every value in a run, with the sizes that it had there."""
    types = {value: _type(inputs[value.name]) for value in graph.inputs if value.name in inputs}

    def record(node: Node, results: Sequence[Any]) -> None:
        types.update({value: _type(result) for value, result in zip(node.results, results, strict=True)})

    run(graph, inputs, hook=record)
    return types


def _type(tensor: Tensor) -> str:
    return str(TensorType(tensor.dtype, tuple(tensor.shape)))

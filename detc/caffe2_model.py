"""A detector as a pair of Caffe2 nets: the artifact of the target `caffe2`, and detectron2's class of that name."""

from __future__ import annotations

import os
from functools import cached_property

from torch import nn
from typing_extensions import override

from detc.backends.caffe2 import Caffe2Nets, Caffe2Runtime, emit, load_nets
from detc.backends.caffe2.load import net_files
from detc.backends.caffe2.proto import NetDef
from detc.backends.caffe2.read import Source, as_net, read_net
from detc.ir import Graph

from .caffe2_outputs import Caffe2Detections
from .detector import Artifact


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

    @property
    def predict_net(self) -> NetDef:
        """The net that is run for each batch."""
        return self.nets.predict_net

    @property
    def init_net(self) -> NetDef:
        """The net that is run once."""
        return self.nets.init_net

    @cached_property
    def runtime(self) -> Caffe2Detections:  # type: ignore[override]
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

    @override
    def save(self, path: str | os.PathLike[str]) -> None:
        """`save_protobuf` under the name that all artifacts have."""
        self.save_protobuf(path)

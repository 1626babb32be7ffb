"""Random well-typed graphs for property tests, and inputs to run them on.

A graph is made from a list of steps (three numbers each), so that hypothesis shrinks it well: the first
number chooses an operation, the others its operands and settings. A step that does not fit the graph so far
does something simple instead. Everything is float64, so that a pass which only reorders arithmetic stays
within 1e-9.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
from hypothesis import strategies as st

from detc.ir import Builder, Constant, Graph, InstancesType, TensorType, Value, symbol

F64 = torch.float64
N, H, W, R = symbol("N"), symbol("H", 4), symbol("W", 4), symbol("R")
NUMBERS = (0, 1, 2.0, 0.5, -1.5, 1.0)

Step = tuple[int, int, int]


class GraphMaker:
    """Builds a graph step by step. `values` are the tensors that a step may use."""

    def __init__(self) -> None:
        self.graph = Graph("random")
        self.values: list[Value] = []
        self.instances: list[Value] = []
        self.b = Builder(self.graph, created_by="capture")
        self._generator = torch.Generator().manual_seed(0)
        self._weights = 0
        for name, shape in (("image", (N, 4, H, W)), ("rows", (N, 6)), ("boxes", (R, 4)), ("scores", (R,))):
            self.values.append(self.graph.add_input(name, TensorType(F64, shape)))
        self.boxes, self.scores = self.values[2:]
        self.index = self.graph.add_input("batch_index", TensorType(torch.int64, (R,)))

    def weight(self, *shape: int, positive: bool = False) -> Constant:
        data = torch.rand(shape, dtype=F64, generator=self._generator)
        self._weights += 1
        return self.graph.add_weight(f"layer{self._weights}.weight", data + 0.5 if positive else data - 0.5)

    def step(self, step: Step) -> None:
        kind, pick, setting = step
        self.b.source = f"layer{len(self.graph)}"
        # Mostly the latest values, so that operations follow one another, sometimes any.
        recent = self.values[-2:] if pick % 4 else self.values
        value = recent[pick // 4 % len(recent)]
        made = STEPS[kind % len(STEPS)](self, value, setting)
        if made is None:
            made = self.b.aten.tanh(value)
        self.values.append(made)


Maker = Callable[[GraphMaker, Value, int], "Value | None"]
STEPS: list[Maker] = []


def step(function: Maker) -> Maker:
    STEPS.append(function)
    return function


def _static(value: Value, axis: int) -> int | None:
    size = value.shape[axis] if value.rank > axis else None
    return size if isinstance(size, int) else None


@step
def _unary(m: GraphMaker, x: Value, n: int) -> Value:
    return m.b.call(("aten.relu", "aten.sigmoid", "aten.neg", "aten.abs")[n % 4], x)


@step
def _nothing(m: GraphMaker, x: Value, n: int) -> Value:
    match n % 9:
        case 0:
            return m.b.aten.dropout(x, p=0.5, train=False)
        case 1:
            return m.b.aten.to.dtype(x, dtype=F64)
        case 2:
            return m.b.aten._to_copy(x, dtype=F64)
        case 3:
            return m.b.aten.expand(x, size=x.shape)
        case 4:
            return m.b.aten.constant_pad_nd(x, pad=(0, 0))
        case 5:
            return m.b.aten.slice.Tensor(x, dim=0, start=0)
        case 6:
            return m.b.aten.cat([x])
    return m.b.call(("aten.clone", "aten.detach")[n % 2], x)


@step
def _number(m: GraphMaker, x: Value, n: int) -> Value:
    name = ("mul", "add", "sub", "div")[n % 4]
    number = NUMBERS[n // 4 % len(NUMBERS)]
    kind = ("Tensor", "Scalar")[n // 24 % 2]
    return m.b.call(f"aten.{name}.{kind}", x, other=number or (2.0 if name == "div" else 0))


@step
def _constant(m: GraphMaker, x: Value, n: int) -> Value:
    name = ("mul", "add", "sub", "div")[n % 4]
    channels = _static(x, 1) if x.rank in (2, 4) else None
    if n // 4 % 3 == 0 or channels is None:
        number = NUMBERS[n // 12 % len(NUMBERS)]
        operand: Value = m.b.constant(
            torch.tensor(float(number or (2.0 if name == "div" else 0.0)), dtype=F64)
        )
    else:
        shape = (channels, 1, 1) if x.rank == 4 else (channels,)
        operand = m.weight(*shape, positive=True)
    if name in ("mul", "add") and n % 8 >= 4:
        return m.b.call(f"aten.{name}.Tensor", operand, x)
    return m.b.call(f"aten.{name}.Tensor", x, operand)


@step
def _binary(m: GraphMaker, x: Value, n: int) -> Value | None:
    partners = [v for v in m.values if v.type == x.type]
    other = partners[n % len(partners)]
    return m.b.call(("aten.add.Tensor", "aten.mul.Tensor", "aten.maximum")[n // 7 % 3], x, other)


@step
def _twice(m: GraphMaker, x: Value, n: int) -> Value:
    left = m.b.aten.sigmoid(m.b.aten.mul.Tensor(x, m.b.constant(torch.tensor(0.5, dtype=F64))))
    right = m.b.aten.sigmoid(m.b.aten.mul.Tensor(x, m.b.constant(torch.tensor(0.5, dtype=F64))))
    return m.b.aten.add.Tensor(left, right)


@step
def _convolution(m: GraphMaker, x: Value, n: int) -> Value | None:
    channels = _static(x, 1)
    if x.rank != 4 or channels is None or channels > 8:
        return None
    size = (1, 3)[n % 2]
    groups = 2 if n // 2 % 2 and channels % 2 == 0 else 1
    bias = m.weight(4) if n // 4 % 2 else None
    options: dict[str, Any] = {"padding": (size // 2, size // 2)}
    if n // 8 % 4 == 1:
        weight = m.weight(channels, 4 // groups, size, size)
        return m.b.aten.conv_transpose2d.input(x, weight, bias, groups=groups, **options)
    weight = m.weight(4, channels // groups, size, size)
    if n // 8 % 4 == 2:
        return m.b.aten.convolution(
            x,
            weight,
            bias,
            stride=(1, 1),
            dilation=(1, 1),
            transposed=False,
            output_padding=(0, 0),
            groups=groups,
            **options,
        )
    if n // 8 % 4 == 3:
        padded = m.b.aten.constant_pad_nd(x, pad=(1, 1, 1, 1))
        return m.b.aten.conv2d(padded, weight, bias, groups=groups)
    return m.b.aten.conv2d(x, weight, bias, groups=groups, **options)


@step
def _batch_norm(m: GraphMaker, x: Value, n: int) -> Value | None:
    channels = _static(x, 1)
    if x.rank not in (2, 4) or channels is None:
        return None
    gamma, beta = (m.weight(channels), m.weight(channels)) if n % 2 else (None, None)
    mean, var = m.weight(channels), m.weight(channels, positive=True)
    if n // 2 % 2:
        op = m.b.aten._native_batch_norm_legit_no_training
        return op(x, gamma, beta, mean, var, momentum=0.1, eps=1e-5)[0]
    options = {"training": False, "momentum": 0.1, "eps": 1e-5, "cudnn_enabled": True}
    return m.b.aten.batch_norm(x, gamma, beta, mean, var, **options)


@step
def _pool(m: GraphMaker, x: Value, n: int) -> Value | None:
    if x.rank != 4:
        return None
    made = m.b.aten.max_pool2d_with_indices(x, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
    return made[0]


@step
def _linear(m: GraphMaker, x: Value, n: int) -> Value | None:
    size = _static(x, 1)
    if x.rank != 2 or size is None:
        return None
    weight = m.weight(6, size)
    match n % 3:
        case 0:
            return m.b.aten.linear(x, weight, m.weight(6) if n // 3 % 2 else None)
        case 1:
            return m.b.aten.addmm(m.weight(6), x, m.b.aten.t(weight))
    return m.b.aten.mm(x, m.b.aten.t(weight))


@step
def _reshape(m: GraphMaker, x: Value, n: int) -> Value | None:
    match n % 6:
        case 0 if x.rank > 1:
            return m.b.aten.flatten.using_ints(x, start_dim=1)
        case 1 if x.rank < 4:
            return m.b.aten.unsqueeze(x, dim=n // 6 % (x.rank + 1))
        case 2 if 1 in x.shape:
            return m.b.aten.squeeze.dim(x, dim=x.shape.index(1))
        case 3:
            return m.b.aten.view(x, size=x.shape)
        case 4 if x.rank > 1:
            return m.b.aten.flatten.using_ints(x, start_dim=0, end_dim=1)
    return m.b.aten.reshape(x, shape=(1, *x.shape)) if x.rank < 4 else None


@step
def _transpose(m: GraphMaker, x: Value, n: int) -> Value | None:
    match n % 3:
        case 0 if x.rank == 2:
            return m.b.aten.t(x)
        case 1 if x.rank > 1:
            return m.b.aten.transpose.int(x, dim0=-1, dim1=n // 3 % x.rank)
    return m.b.aten.permute(x, dims=tuple((i + n) % x.rank for i in range(x.rank)))


@step
def _join(m: GraphMaker, x: Value, n: int) -> Value | None:
    channels = _static(x, 1)
    if x.rank != 4 or channels is None or channels > 6:
        return None
    return m.b.aten.cat([x, m.b.aten.neg(x)], dim=1)


@step
def _constants(m: GraphMaker, x: Value, n: int) -> Value:
    # Nothing here depends on an input: it can be computed ahead.
    left, right = m.weight(3), m.b.constant(torch.tensor([0.5, -1.0, 2.0], dtype=F64))
    return m.b.aten.mul.Tensor(m.b.aten.add.Tensor(left, right), right)


@step
def _data_dependent(m: GraphMaker, x: Value, n: int) -> Value:
    rows = m.b.det.nonempty(m.boxes, threshold=(0.0, 0.5)[n % 2])
    kept = m.b.aten.index_select(m.boxes, rows, dim=0)
    match n // 2 % 4:
        case 0:
            return m.b.aten.view(kept, size=(4 * rows.shape[0],))
        case 1:
            # The size alone ties it to the rows.
            return m.b.aten.full(size=(*rows.shape, 4), fill_value=0.5, dtype=F64)
        case 2:
            return m.b.aten.expand(m.b.constant(torch.ones(1, 4, dtype=F64)), size=kept.shape)
    return kept


@step
def _instances(m: GraphMaker, x: Value, n: int) -> Value | None:
    if n % 3 == 0 or not m.instances:
        names = ("pred_boxes", "scores", "batch_index")
        m.instances.append(m.b.instances.make([m.boxes, m.scores, m.index], names=names))
    chosen = m.instances[n // 3 % len(m.instances)]
    if n % 3 == 1 and x.rank and x.shape[0] == R:
        chosen = m.b.instances.set(chosen, x, field=("extra", "scores")[0 if x.rank > 1 else 1])
        m.instances.append(chosen)
    assert isinstance(chosen.type, InstancesType)
    names = [name for name, _ in chosen.type.fields if name != "batch_index"]
    return m.b.instances.get(chosen, field=names[n // 9 % len(names)])


# Motifs: what the passes look for, with variations


def _image(m: GraphMaker, x: Value) -> Value:
    """A value that a convolution takes: x itself, if it is one."""
    return x if x.rank == 4 and _static(x, 1) == 4 else m.values[0]


def _convolved(m: GraphMaker, x: Value, n: int) -> Value:
    bias = m.weight(4) if n % 2 else None
    return m.b.aten.conv2d(x, m.weight(4, 4, 1, 1), bias)


@step
def _convolution_and_batch_norm(m: GraphMaker, x: Value, n: int) -> Value:
    made = _convolved(m, _image(m, x), n)
    if n // 2 % 4 == 0:
        # A second use forbids folding.
        m.values.append(made)
    normed = _batch_norm(m, made, n // 8)
    assert normed is not None
    return normed


@step
def _convolution_and_constants(m: GraphMaker, x: Value, n: int) -> Value:
    return _constant(m, _constant(m, _convolved(m, _image(m, x), n), n // 2), n // 40)


@step
def _convolution_and_number(m: GraphMaker, x: Value, n: int) -> Value:
    return _number(m, _convolved(m, _image(m, x), n), n // 2)


@step
def _transposed_convolution_and_batch_norm(m: GraphMaker, x: Value, n: int) -> Value:
    groups = (1, 2)[n % 2]
    made = m.b.aten.conv_transpose2d.input(_image(m, x), m.weight(4, 4 // groups, 1, 1), groups=groups)
    normed = _batch_norm(m, made, n // 2)
    assert normed is not None
    return normed


@step
def _constants_and_convolution(m: GraphMaker, x: Value, n: int) -> Value:
    groups = (1, 2)[n % 2]
    scaled = m.b.aten.mul.Tensor(_image(m, x), m.weight(4, 1, 1))
    if n // 2 % 3 == 0:
        scaled = m.b.aten.constant_pad_nd(scaled, pad=(1, 1, 2, 2))
    return m.b.aten.conv2d(scaled, m.weight(4, 4 // groups, 3, 3), padding=(1, 1), groups=groups)


@step
def _linear_and_constants(m: GraphMaker, x: Value, n: int) -> Value:
    rows = x if x.rank == 2 and _static(x, 1) == 6 else m.values[1]
    made = m.b.aten.linear(rows, m.weight(6, 6), m.weight(6) if n % 2 else None)
    return _constant(m, _batch_norm(m, made, n) or made, n // 4)


@step
def _parallel(m: GraphMaker, x: Value, n: int) -> Value:
    image = _image(m, x)
    m.values.append(_convolved(m, image, n))
    return _convolved(m, image, n // 2)


@step
def _chain_of_views(m: GraphMaker, x: Value, n: int) -> Value:
    for i in range(4):
        made = (_reshape, _transpose)[n >> i & 1](m, x, n >> (4 + 2 * i))
        x = made if made is not None else x
    return x


@step
def _chain_of_constants(m: GraphMaker, x: Value, n: int) -> Value:
    return (_constant, _number)[n % 2](m, (_constant, _number)[n % 2](m, x, n // 2), n // 200)


@step
def _two_relus(m: GraphMaker, x: Value, n: int) -> Value:
    return m.b.aten.relu(m.b.aten.relu(x))


def make_graph(steps: list[Step], outputs: list[int]) -> Graph:
    """The graph of these steps. `outputs` chooses which values are outputs; the last one always is."""
    maker = GraphMaker()
    for item in steps:
        maker.step(item)
    chosen = {id(maker.values[-1]): maker.values[-1]}
    for number in outputs:
        value = maker.values[number % len(maker.values)]
        chosen[id(value)] = value
    named = {f"out{i}": value for i, value in enumerate(chosen.values())}
    if maker.instances:
        named["instances"] = maker.instances[-1]
    maker.graph.set_outputs(named)
    return maker.graph


def _scattered(seed: int) -> Step:
    """Three numbers that depend on all of the seed: seeds are often small, the numbers must not be."""
    generator = random.Random(seed)
    return generator.randrange(10**6), generator.randrange(10**6), generator.randrange(10**6)


def graphs(max_steps: int = 14) -> st.SearchStrategy[Graph]:
    """Random well-typed graphs of the level `captured`, with dead code in them."""
    steps = st.lists(st.integers(0, 2**32 - 1).map(_scattered), min_size=1, max_size=max_steps)
    return st.builds(make_graph, steps, st.lists(st.integers(0, 100), max_size=3))


def inputs_for(graph: Graph, *, images: int = 2, rows: int = 5, seed: int = 0) -> dict[str, torch.Tensor]:
    """Inputs for a graph of `graphs()`: some boxes are empty, so that the data decides a size."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(rows, 2, generator=generator, dtype=F64) * 10
    sides = torch.rand(rows, 2, generator=generator, dtype=F64) - 0.2
    given = {
        "image": torch.randn(images, 4, 4, 8, generator=generator, dtype=F64),
        "rows": torch.randn(images, 6, generator=generator, dtype=F64),
        "boxes": torch.cat([corners, corners + sides], dim=1),
        "scores": torch.rand(rows, generator=generator, dtype=F64),
        "batch_index": torch.arange(rows) * images // max(rows, 1),
    }
    return {value.name: given[value.name] for value in graph.inputs}

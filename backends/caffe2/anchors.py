"""The anchors of an exported RetinaNet, whose original exporter pickled the anchor generator into the net.

The argument `serialized_anchor_generator` holds what `torch.save` wrote: a zip archive with a pickle and the
raw tensors. Loading that would run code of a stranger. Here the pickle's opcodes are walked as data instead:
names of classes and functions stay names, a "call" only notes what was to be called, and of the result three
known values are taken. Source: detectron2 v0.6, `export/caffe2_modeling.py` and
`modeling/anchor_generator.py`.
"""

from __future__ import annotations

import io
import pickletools
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor

from .errors import InputError

_MAX_BYTES: Final = 1 << 20
"""Far more than an anchor generator needs; a larger member of the archive is refused unread."""


@dataclass(frozen=True)
class AnchorGenerator:
    """What lays out a dense detector's anchors.

    Attributes:
        cell_anchors: per feature level, f32[A, 4] (x0, y0, x1, y1) or f32[A, 5] (center x, y, width, height,
            angle in degrees), in pixels of the input, around the origin.
        strides: per feature level, in pixels.
        offset: of the first anchor's center from the image's corner, in strides.
    """

    cell_anchors: tuple[Tensor, ...]
    strides: tuple[int, ...]
    offset: float


@dataclass(eq=False)
class _Inert:
    """What stands for an object of a pickle: its class or function by name, and what it was made from."""

    name: str
    arguments: Any = ()
    state: dict[Any, Any] = field(default_factory=dict)


class _Mark:
    """The pickle machine's mark on its stack."""


def read_anchor_generator(archive: bytes) -> AnchorGenerator:
    """The anchor generator that `torch.save` put into `archive`, read without running anything of it.

    Errors:
        InputError: not such an archive, or one that holds something else than an anchor generator.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as members:
            pickles = [name for name in members.namelist() if name.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise InputError("the anchor generator in the net is no archive of torch.save's")
            folder = pickles[0].removesuffix("data.pkl")
            root = _walk(_member(members, pickles[0]))
            return _anchor_generator(root, lambda key: _member(members, f"{folder}data/{key}"))
    except InputError:
        raise
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        EOFError,
        OSError,
        LookupError,
        ValueError,
        struct.error,
    ) as error:
        raise InputError(f"the anchor generator in the net cannot be read: {error}") from error


def _member(members: zipfile.ZipFile, name: str) -> bytes:
    info = members.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.file_size > _MAX_BYTES:
        # torch.save stores plainly; what is packed or encrypted did not come from it.
        raise InputError(
            f"the anchor generator in the net is not as torch.save writes one: {name!r} is packed or huge"
        )
    return members.read(name)


def _walk(pickle: bytes) -> Any:
    """Follow the opcodes that torch.save writes, with objects as `_Inert`. Anything else is an InputError."""
    machine = _Machine()
    try:
        operation: tuple[pickletools.OpcodeInfo, Any, int | None]
        for operation in pickletools.genops(pickle):
            opcode, argument = operation[:2]
            if opcode.name == "STOP":
                return machine.stack.pop()
            machine.step(opcode.name, argument)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"the anchor generator in the net is a broken pickle: {error}") from error
    raise InputError("the anchor generator in the net is a truncated pickle")


class _Machine:
    """The pickle machine, which makes nothing but containers and `_Inert`."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Do what the opcode of that name does."""
        match name:
            case "PROTO" | "FRAME":
                pass
            case "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = self.stack[-1]
            case "APPEND" | "APPENDS":
                values = [self.stack.pop()] if name == "APPEND" else self._to_mark()
                _checked(self.stack[-1], list).extend(values)
            case "SETITEM" | "SETITEMS":
                values = [self.stack.pop(), self.stack.pop()][::-1] if name == "SETITEM" else self._to_mark()
                for key, value in zip(values[::2], values[1::2], strict=True):
                    _mapping(self.stack[-1])[_checked(key, str)] = value
            case "BUILD":
                state = self.stack.pop()
                _checked(self.stack[-1], _Inert).state = _checked(state, dict)
            case _:
                self.stack.append(self._made(name, argument))

    def _made(self, name: str, argument: Any) -> Any:
        """What an opcode puts onto the stack, of its argument or of what it takes from there."""
        match name:
            case "BINUNICODE" | "SHORT_BINUNICODE" | "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                return argument
            case "NEWTRUE" | "NEWFALSE":
                return name == "NEWTRUE"
            case "NONE":
                return None
            case "EMPTY_TUPLE" | "EMPTY_LIST" | "EMPTY_DICT":
                return {"EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict}[name]()
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                return tuple([self.stack.pop() for _ in range(int(name[-1]))][::-1])
            case "TUPLE":
                return tuple(self._to_mark())
            case "MARK":
                return _Mark()
            case "BINGET" | "LONG_BINGET":
                return self._memo[argument]
            case "GLOBAL":
                return _Inert(argument.replace(" ", "."))
            case "NEWOBJ" | "REDUCE":
                arguments, called = self.stack.pop(), _checked(self.stack.pop(), _Inert)
                return _Inert(called.name, arguments)
            case "BINPERSID":
                return _Inert("storage", self.stack.pop())
        raise InputError(f"the anchor generator in the net uses the pickle opcode {name}: refused")

    def _to_mark(self) -> list[Any]:
        above = []
        while not isinstance(self.stack[-1], _Mark):
            above.append(self.stack.pop())
        self.stack.pop()
        return above[::-1]


def _checked(value: Any, *kinds: type) -> Any:
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise InputError(
            f"the anchor generator in the net is malformed: {wanted} expected, found {type(value).__name__}"
        )
    return value


def _mapping(value: Any) -> dict[Any, Any]:
    """Where items go: a dict, or the state of an inert OrderedDict."""
    return value.state if isinstance(value, _Inert) else _checked(value, dict)


def _anchor_generator(root: Any, storage: Callable[[str], bytes]) -> AnchorGenerator:
    state = _checked(root, _Inert).state
    holder = _mapping(state.get("_modules", {})).get("cell_anchors")
    if holder is None or "strides" not in state:
        raise InputError(
            f"the net holds a pickled {root.name}, which is no anchor generator that is known here"
        )
    buffers = _mapping(_checked(holder, _Inert).state.get("_buffers", {}))
    # Kept under "0", "1", ... in the order of the levels.
    cell_anchors = tuple(_tensor(buffers[str(level)], storage) for level in range(len(buffers)))
    strides = tuple(_checked(stride, int) for stride in _checked(state["strides"], list))
    # Anchor generators of before v0.2 had no offset, which was zero.
    offset = float(_checked(state.get("offset", 0.0), float, int))
    if not cell_anchors or len(cell_anchors) != len(strides):
        raise InputError(
            f"the anchor generator in the net has {len(cell_anchors)} sets of anchors, {len(strides)} strides"
        )
    return AnchorGenerator(cell_anchors, strides, offset)


def _tensor(value: Any, storage: Callable[[str], bytes]) -> Tensor:
    """f32[A, 4 or 5]: what `torch._utils._rebuild_tensor_v2(storage, offset, size, stride)` would make."""
    call = _checked(value, _Inert)
    if call.name != "torch._utils._rebuild_tensor_v2" or len(_checked(call.arguments, tuple)) < 4:
        raise InputError(f"the anchor generator in the net holds {call.name} where its anchors should be")
    source, offset, size, stride = call.arguments[:4]
    kind, element, key = _checked(_checked(source, _Inert).arguments, tuple)[:3]
    if kind != "storage" or _checked(element, _Inert).name != "torch.FloatStorage":
        raise InputError("the anchor generator in the net holds anchors that are not float32")
    layout = tuple(_checked(n, int) for n in (offset, *_checked(size, tuple), *_checked(stride, tuple)))
    count, width = layout[1:3]
    if layout != (0, count, width, width, 1) or width not in (4, 5) or count < 1:
        raise InputError(f"the anchor generator in the net holds anchors with the unknown layout {layout}")
    data = storage(_checked(key, str))
    if len(data) < 4 * count * width:
        raise InputError("the anchor generator in the net holds fewer bytes than its anchors need")
    return torch.frombuffer(bytearray(data), dtype=torch.float32, count=count * width).reshape(count, width)

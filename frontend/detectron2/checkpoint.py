"""Reads checkpoints without running code, and loads them into models."""

from __future__ import annotations

import codecs
import io
import os
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file as load_safetensors
from torch import Tensor, nn

from ..errors import InputError

_ZIP_MAGIC = b"PK\x03\x04"
_LFS_MAGIC = b"version https://git-lfs"
# What torch.save began files with before its zip format: a pickle of the number 0x1950A86A20F9469CFC6C.
_OLD_TORCH_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


class StateDict(dict[str, Tensor]):
    """Tensors by name.

    Attributes:
        matching_heuristics: the checkpoint says that its names are to be matched with the ends of the model's
            names, as detectron2 does for ImageNet backbones.
    """

    matching_heuristics: bool = False


def load_state_dict(path: str | os.PathLike[str]) -> StateDict:
    """Read the weights of a checkpoint; no code in it is run.

    Args:
        path: a .safetensors file; a .pkl file as in detectron2's model zoo (a pickle of numpy arrays);
            anything else is taken for a file of `torch.save`. The tensors may be the whole, or under "model"
            ("model_state" in pycls's files).

    Returns:
        Tensors on the CPU by name. They can be views of the file.

    Raises:
        InputError: no such file, a truncated or foreign one, one that asks for other things to be made than
            arrays and containers, or one that holds no weights.
    """
    if "://" in os.fspath(path):
        raise InputError(f"{path} is not a local file; download the checkpoint and give its path")
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(len(_LFS_MAGIC))
    except OSError as error:
        raise InputError(f"cannot read the checkpoint {path}: {error.strerror or error}") from error
    if head == _LFS_MAGIC:
        raise InputError(f"{path} is a Git LFS pointer, not a checkpoint; run 'git lfs pull'")
    if not head:
        raise InputError(f"{path} is empty")
    if path.suffix == ".safetensors":
        return _named_tensors(_read_safetensors(path), path)
    if path.suffix == ".pkl" and not head.startswith((_ZIP_MAGIC, _OLD_TORCH_MAGIC)):
        return _named_tensors(_read_pickle(path), path)
    return _named_tensors(_read_torch(path), path)


def _read_safetensors(path: Path) -> Any:
    try:
        return load_safetensors(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path} is truncated, or not a safetensors file: {error}") from error


def _read_torch(path: Path) -> Any:
    # Only torch's zip format can be mapped into memory. Numpy arrays beside the weights are harmless, and
    # common.
    try:
        with torch.serialization.safe_globals(_NUMPY_GLOBALS):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if refused:
            raise InputError(
                f"{path} is refused: it asks for {refused[1]}, which is no part of weights"
            ) from error
        raise InputError(f"{path} is truncated, or not a checkpoint: {_first_line(error)}") from error
    except Exception as error:  # torch.load has no one exception for bad files
        raise InputError(f"{path} is truncated, or not a checkpoint: {_first_line(error)}") from error


class _BytesEncoder:
    """What pickles of Python 3's bytes in old protocols call, for their one codec."""

    __slots__ = ()

    def __call__(self, text: str, encoding: str) -> bytes:
        if encoding not in ("latin1", "latin-1"):
            raise pickle.UnpicklingError(f"the encoding {encoding!r}")
        return codecs.latin_1_encode(text)[0]


_RECONSTRUCT = np.empty(0).__reduce__()[0]
_SCALAR = np.float32(0).__reduce__()[0]
_NUMPY_GLOBALS: list[Any] = [np.ndarray, np.dtype, *{type(np.dtype(code)) for code in "?bhilqBHILQefd"}]
_ALLOWED_GLOBALS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _BytesEncoder(),
}
# numpy 2 moved its internals from numpy.core to numpy._core; pickles of either are read with either.
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED_GLOBALS[f"{_core}.multiarray", "_reconstruct"] = _RECONSTRUCT
    _ALLOWED_GLOBALS[f"{_core}.multiarray", "scalar"] = _SCALAR
    _ALLOWED_GLOBALS[f"{_core}.numeric", "_frombuffer"] = np.zeros(1).__reduce_ex__(5)[0]
    _NUMPY_GLOBALS += [
        (_RECONSTRUCT, f"{_core}.multiarray._reconstruct"),
        (_SCALAR, f"{_core}.multiarray.scalar"),
    ]


class _RestrictedUnpickler(pickle.Unpickler):
    """Makes numpy arrays and containers, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED_GLOBALS:
            raise _RefusedGlobalError(f"{module}.{name}")
        return _ALLOWED_GLOBALS[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise _RefusedGlobalError("an object outside the file")


class _RefusedGlobalError(Exception):
    """A pickle asks for something that is not allowed."""


def _read_pickle(path: Path) -> Any:
    try:
        # latin1 is how Python 3 reads the arrays in pickles of Python 2.
        return _RestrictedUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except _RefusedGlobalError as error:
        raise InputError(f"{path} is refused: it asks for {error}, which is no part of weights") from error
    except Exception as error:  # a damaged pickle can raise anything
        raise InputError(f"{path} is truncated, or not a pickle of weights: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0] or type(error).__name__


def _named_tensors(loaded: Any, path: Path) -> StateDict:
    """Find the weights in what a file held, and make tensors of them."""
    if not isinstance(loaded, Mapping):
        raise InputError(f"{path} holds no weights by name, but a {type(loaded).__name__}")
    weights: Any = loaded
    for key in ("model", "model_state"):
        if isinstance(loaded.get(key), Mapping):
            weights = loaded[key]
            break
    if "blobs" in weights or (weights and all(_is_caffe2_name(name) for name in weights)):
        raise InputError(
            f"{path} is a Detectron1 (Caffe2) checkpoint, with other names and another order of classes; "
            "load it in detectron2, save it there, and use that"
        )
    # What torch's DataParallel puts in front of every name.
    prefix = "module." if weights and all(str(name).startswith("module.") for name in weights) else ""
    tensors = StateDict()
    for name, value in weights.items():
        if not isinstance(name, str):
            raise InputError(f"{path} holds no weights by name: {name!r} is not a string")
        tensors[name.removeprefix(prefix)] = _tensor(name, value, path)
    if not tensors:
        raise InputError(f"{path} holds no weights")
    tensors.matching_heuristics = bool(loaded.get("matching_heuristics", False)) or weights is loaded.get(
        "model_state"
    )
    return tensors


def _is_caffe2_name(name: Any) -> bool:
    return isinstance(name, str) and "." not in name and "_" in name


def _tensor(name: str, value: Any, path: Path) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, np.ndarray | np.generic):
        try:
            return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("="), ndmin=value.ndim))
        except TypeError as error:
            raise InputError(f"{path}: {name} has the type {value.dtype}, which is no tensor's") from error
    raise InputError(f"{path} holds no weights by name: {name} is no tensor, but a {type(value).__name__}")


def load_into(model: nn.Module, state_dict: Mapping[str, Tensor], path: str | os.PathLike[str]) -> None:
    """Copy weights into a model; every parameter must be there, with its shape.

    What detectron2 does without is no error: constants that the config gives (pixel_mean, pixel_std, cell
    anchors), and what only training uses (num_batches_tracked, class frequencies of the federated loss).

    Args:
        model: the model to fill.
        state_dict: from `load_state_dict`.
        path: where the weights are from, for messages.

    Raises:
        InputError: lists all names that are missing, unexpected, or of another shape. The model is not
            changed then.
    """
    expected = model.state_dict()
    given = _rename_old_pointrend(dict(state_dict), expected)
    if getattr(state_dict, "matching_heuristics", False):
        given = _match_suffixes(given, expected, path)
    missing = [name for name in expected if name not in given and not _is_optional(name)]
    unexpected = [name for name in given if name not in expected and not _is_optional(name)]
    mismatched = [
        f"{name}: {_shape(given[name])} in the checkpoint, {_shape(value)} in the model"
        for name, value in expected.items()
        if name in given and given[name].shape != value.shape
    ]
    problems = []
    for title, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", mismatched)):
        if names:
            problems.append(f"  {len(names)} {title}:\n" + "\n".join(f"    {name}" for name in names))
    if problems:
        raise InputError(f"{path} does not fit the model of the config:\n" + "\n".join(problems))
    model.load_state_dict({name: value for name, value in given.items() if name in expected}, strict=False)


def _is_optional(name: str) -> bool:
    last = name.rsplit(".", 1)[-1]
    return (
        name in ("pixel_mean", "pixel_std")
        or last in ("num_batches_tracked", "fed_loss_cls_weights")
        or "anchor_generator.cell_anchors" in name
    )


def _shape(tensor: Tensor) -> str:
    return str(list(tensor.shape))


def _rename_old_pointrend(given: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The names of PointRend's first release, still in its model zoo, become today's."""
    old = ("roi_heads.mask_point_head.", "roi_heads.mask_coarse_head.")
    if not any(name.startswith(old) for name in given) or any(name.startswith(old) for name in expected):
        return given
    renamed = {}
    for name, value in given.items():
        if name.startswith(old):
            new = name.replace("roi_heads.mask_point_head.", "roi_heads.mask_head.point_head.")
            new = new.replace("roi_heads.mask_coarse_head.", "roi_heads.mask_head.coarse_head.")
            name = new.replace(".coarse_mask_fc", ".fc")  # noqa: PLW2901
        renamed[name] = value
    return renamed


def _match_suffixes(
    given: dict[str, Tensor], expected: Mapping[str, Tensor], path: str | os.PathLike[str]
) -> dict[str, Tensor]:
    """Give each of the model's names the value whose name it ends with, the longest such; others keep their
    names.
    """
    matched: dict[str, str] = {}
    for name in expected:
        parts = name.split(".")
        suffixes = (".".join(parts[start:]) for start in range(len(parts)))
        source = next((suffix for suffix in suffixes if suffix in given), None)
        if source is None:
            continue
        if source in matched:
            raise InputError(
                f"{path}: {source} fits more than one of the model's names: {matched[source]} and {name}"
            )
        matched[source] = name
    return {matched.get(name, name): value for name, value in given.items()}

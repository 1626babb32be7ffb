"""What detc uses of torch that is not public: in one module, there in this torch, and named when it is not."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import pytest
import torch

from detc.ir import InputError, symbol, torch_parts
from detc.ir.errors import SizeIsNoNumber
from detc.ir.symbolic import dim_of, size
from tests import zoo

ROOT = Path(__file__).parents[2]
MODES = "torch.utils._python_dispatch"
NODES = "torch.fx.experimental.sym_node"
TESTED = r"detc was tested with torch 2\.\d+ to 2\.\d+: install one of these"

# Modules that torch documents as free to change, though their names do not begin with an underscore.
UNSTABLE = ("torch.fx.experimental", "torch.fx.traceback")
# Names with an underscore that are neither torch's nor detc's.
OTHERS = {
    "_SubParsersAction": "argparse",
    "_fields": "namedtuple",
    "_getframe": "sys",
    "_feature_scales": "detectron2",
}

BY_NAME = ("getattr", "hasattr", "setattr", "delattr")


def test_this_torch_has_all_parts() -> None:
    assert torch_parts.check() == []


@pytest.mark.parametrize(
    "name", [name for name in torch_parts._PARTS if name[0].islower() and name != "sym_node"]
)
def test_a_part_that_is_taken_away_is_missed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    part = torch_parts._PARTS[name]
    module, _, attribute = part.path.rpartition(".")
    monkeypatch.delattr(import_module(module), attribute)
    said = f"torch {torch.__version__} has no {part.path}, which detc needs {part.purpose}; "
    # Torch needs some of them itself, and then more does not work.
    (message,) = (message for message in torch_parts.check() if message.startswith(said))
    assert re.search(f"{TESTED}$", message)


def test_a_method_that_is_taken_away_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(f"{NODES}.wrap_node")
    (message,) = torch_parts.check()
    assert f" has no {NODES}.wrap_node, which detc needs to infer sizes; " in message


@pytest.mark.parametrize(
    ("changed", "lacks"), [(lambda node: node, "2 arguments"), (lambda node, *, number: node, "2 arguments")]
)
def test_a_changed_signature_is_seen(changed: object, lacks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{NODES}.to_node", changed)
    (message,) = torch_parts.check()
    assert f" has no {NODES}.to_node that takes {lacks}, which" in message


def test_only_what_needs_a_part_misses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch._C.ScriptModule, "dump_to_str")
    monkeypatch.setattr(torch_parts, "_part", torch_parts._part.__wrapped__)
    scripted = torch.jit.script(torch.nn.ReLU())
    with pytest.raises(
        InputError, match=r"has no torch\._C\.ScriptModule\.dump_to_str, which detc needs to dump"
    ):
        torch_parts.script_text(scripted)
    assert torch_parts.schema(torch.ops.aten.relu.default).name == "aten::relu"


def test_torch_computes_with_the_sizes_of_the_ir() -> None:
    half = (size(symbol("H")) + 1) // 2
    assert isinstance(half, torch.SymInt)
    assert str(dim_of(half)) == "ceil(H/2)"
    with pytest.raises(SizeIsNoNumber, match="needs the size ceil"):
        int(half)


@pytest.mark.parametrize(
    ("take_away", "missing"),
    [
        (f"import {MODES}; del {MODES}.TorchDispatchMode", f"{MODES}.TorchDispatchMode"),
        ("sys.modules['torch.utils._pytree'] = None", "torch.utils._pytree.tree_flatten"),
    ],
)  # fmt: skip
def test_one_line_says_so(
    take_away: str, missing: str, detc_command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    name = "mask_rcnn_R_50_FPN"
    program = (
        "import sys, torch, torchvision\n"
        f"{take_away}\n"
        "import detc, detc.api, detc.export\n"
        "from detc.commands.main import main\n"
        "try: detc.capture(detc.load_model(sys.argv[3], sys.argv[5]))\n"
        "except detc.InputError as error: print(error)\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    done = detc_command(
        "export", "--config", str(zoo.config_path(name)), "--weights", str(zoo.weights_path(name)),
        "--output", "model.onnx", program=("-c", program),
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == f"detc: error: {done.stdout}"
    said = rf"torch {re.escape(torch.__version__)} has no {re.escape(missing)}, which detc needs to [a-z ]+; {TESTED}\n"
    assert re.fullmatch(said, done.stdout)


def test_no_other_module_uses_them() -> None:
    trees = {
        path.relative_to(ROOT): ast.parse(path.read_text(encoding="utf-8"))
        for folder in ("driver", "frontend", "ir", "passes", "backends")
        for path in sorted((ROOT / folder).rglob("*.py"))
    }
    own = {name for tree in trees.values() for name in _declared(tree)} | set(OTHERS)
    found = {str(path): _non_public(tree, own) for path, tree in trees.items()}
    assert len(found.pop("ir/torch_parts.py")) > 10
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "code",
    [
        "import torch._dynamo",
        "from torch import _C",
        "from torch.utils import _pytree as pytree",
        "from torch.fx import traceback",
        "from torch.fx.experimental.proxy_tensor import make_fx",
        "torch._ops.OpOverload",
        "torch.fx.experimental.symbolic_shapes",
        "overload._schema",
        "size.node.expr",
        "getattr(module, '_c', None)",
    ],
)  # fmt: skip
def test_the_search_finds(code: str) -> None:
    assert f"1: {code}" in _non_public(ast.parse(code), set())
    assert _non_public(ast.parse("torch.ops.aten._to_copy(self._mine, build.aten._to_copy)"), {"_mine"}) == []


def _non_public(tree: ast.AST, own: set[str]) -> list[str]:
    """The uses of torch's non-public parts. `own` are names with an underscore that are not torch's."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names = [_dotted(node)]
        elif isinstance(node, ast.Call) and _dotted(node.func) in BY_NAME:
            names = [f".{arg.value}" for arg in node.args[1:2] if isinstance(arg, ast.Constant)]
        found += [(node.lineno, ast.unparse(node)) for name in names if _is_non_public(name, own)]
    return [f"{line}: {text}" for line, text in sorted(found)]


def _dotted(node: ast.expr) -> str:
    """`torch.ops.aten`; an attribute of what has no name begins with the dot."""
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _is_non_public(name: str, own: set[str]) -> bool:
    parts = name.split(".")
    if parts[-2:-1] == ["aten"]:  # an operator
        return False
    if name.endswith(".node.expr") or any(f"{name}.".startswith(f"{module}.") for module in UNSTABLE):
        return True
    checked = parts if parts[0] == "torch" else parts[-1:]
    return any(part.startswith("_") and not part.startswith("__") and part not in own for part in checked)


def _declared(tree: ast.AST) -> Iterator[str]:
    """The names that a module declares: of functions, classes, variables and attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and _dotted(node.value) == "self"
        ):
            yield node.attr

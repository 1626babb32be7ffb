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
from sympy.core.function import Application

from detc.ir import InputError, symbol, torch_parts
from detc.ir.shape_env import ExampleShapeEnv
from detc.ir.symbolic import SymbolicShapes
from tests import zoo

ROOT = Path(__file__).parents[2]
SHAPES = "torch.fx.experimental.symbolic_shapes"
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
    "name", [name for name in torch_parts._PARTS if name[0].islower() or name == "ShapeEnv"]
)
def test_a_part_that_is_taken_away_is_missed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    part = torch_parts._PARTS[name]
    module, _, attribute = part.path.rpartition(".")
    monkeypatch.delattr(import_module(module), attribute)
    said = f"torch {torch.__version__} has no {part.path}, which detc needs {part.purpose}; "
    # Torch needs some of them itself, and then more does not work.
    (message,) = (message for message in torch_parts.check() if message.startswith(said))
    assert re.search(f"{TESTED}$", message)


@pytest.mark.parametrize("method", torch_parts._PARTS["ShapeEnv"].members)
def test_a_method_that_is_taken_away_is_missed(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Torch itself calls some of them to make an environment.
    environment = type("Environment", (), {"__init__": lambda self: None, **dict(vars(torch_parts.ShapeEnv))})
    monkeypatch.setattr(f"{SHAPES}.ShapeEnv", environment)
    delattr(environment, method)
    (message,) = torch_parts.check()
    assert f" has no {SHAPES}.ShapeEnv.{method}, which detc needs to infer sizes; " in message


@pytest.mark.parametrize(
    ("changed", "lacks"),
    [
        (lambda self, expr, unbacked_only=False: expr, "compute_hint="),
        (lambda self, expr, *, axioms, compute_hint: expr, "one argument"),
    ],
)
def test_a_changed_signature_is_seen(changed: object, lacks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_parts.ShapeEnv, "_maybe_evaluate_static", changed)
    (message,) = torch_parts.check()
    assert f" has no {SHAPES}.ShapeEnv._maybe_evaluate_static that takes {lacks}, which" in message


def test_only_what_needs_a_part_misses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch._C.ScriptModule, "dump_to_str")
    monkeypatch.setattr(torch_parts, "_part", torch_parts._part.__wrapped__)
    scripted = torch.jit.script(torch.nn.ReLU())
    with pytest.raises(
        InputError, match=r"has no torch\._C\.ScriptModule\.dump_to_str, which detc needs to dump"
    ):
        torch_parts.script_text(scripted)
    assert torch_parts.schema(torch.ops.aten.relu.default).name == "aten::relu"


def test_what_the_environment_overrides_is_checked() -> None:
    """A method of detc's that gets in the way of a new one of torch's would be listed here as well."""
    overridden = {
        name
        for name in vars(ExampleShapeEnv)
        if not name.startswith("__") and hasattr(torch_parts.ShapeEnv, name)
    }
    assert overridden == {"replace", "evaluate_expr", "_maybe_evaluate_static"}
    assert overridden <= set(torch_parts._PARTS["ShapeEnv"].members)


def test_torch_asks_the_environment_how_to_spell_a_size() -> None:
    height = symbol("H")
    world = SymbolicShapes(height.symbols())
    half = (world.size(height) + 1) // 2
    assert not torch_parts.expression(half).has(Application)
    assert str(world.dim(half)) == "ceil(H/2)"


@pytest.mark.parametrize(
    ("take_away", "missing"),
    [
        ("del torch.fx.experimental.symbolic_shapes.ShapeEnv.create_symbol", f"{SHAPES}.ShapeEnv.create_symbol"),
        ("sys.modules['torch._dynamo.source'] = None", "torch._dynamo.source.ConstantSource"),
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
    inherited = set(torch_parts._PARTS["ShapeEnv"].members)
    found = {
        str(path): _non_public(tree, own | inherited if path.name == "shape_env.py" else own)
        for path, tree in trees.items()
    }
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

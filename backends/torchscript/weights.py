"""A graph's weights as a tree of modules, and the file that says what the graph's metadata says."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

METADATA_FILE = "detc.json"
"""The extra file in the archives that says what the graph's metadata says, as JSON."""


def module_tree(weights: Mapping[tuple[str, ...], Tensor]) -> nn.Module:
    """Modules that hold the weights under their paths, as parameters; those of whole numbers as buffers."""
    root = _new_module("Detector")
    for (*parents, name), tensor in weights.items():
        module = root
        for parent in parents:
            if parent not in dict(module.named_children()):
                module.add_module(parent, _new_module("Weights"))
            module = module.get_submodule(parent)
        data = tensor.detach()
        if data.is_floating_point():
            module.register_parameter(name, nn.Parameter(data, requires_grad=False))
        else:
            module.register_buffer(name, data)
    return root.eval()


def _new_module(name: str) -> nn.Module:
    # A class of its own: torch.jit shares one type, and one `forward`, among modules of one class that look alike.
    made: nn.Module = type(name, (nn.Module,), {"__module__": "detc"})()
    return made

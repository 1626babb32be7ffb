"""What can be known of a graph without running it, for passes and for their authors. All on networkx.

Each analysis looks at a graph as it stands; none changes it, and none is kept up to date when it changes.
"""

from .cost import ModuleCost, flops, module_costs
from .dataflow import def_use_graph, dominators, slice_between
from .isomorphism import Occurrence, find_subgraphs
from .memory import Liveness, example_sizes, liveness, tensor_bytes

__all__ = [
    "Liveness",
    "ModuleCost",
    "Occurrence",
    "def_use_graph",
    "dominators",
    "example_sizes",
    "find_subgraphs",
    "flops",
    "liveness",
    "module_costs",
    "slice_between",
    "tensor_bytes",
]

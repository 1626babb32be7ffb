"""The tracer: what a function of tensors computes, as nodes of the IR."""

from .branches import ASSUMPTIONS
from .recorded import weight_names
from .tracer import trace

__all__ = ["ASSUMPTIONS", "trace", "weight_names"]

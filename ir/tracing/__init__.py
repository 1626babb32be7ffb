"""The tracer: what a function of tensors computes, as nodes of the IR."""

from .branches import ASSUMPTIONS
from .tracer import trace, weight_names

__all__ = ["ASSUMPTIONS", "trace", "weight_names"]

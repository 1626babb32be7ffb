"""Pausing Python's cyclic garbage collector while a graph grows.

Nodes and values point at each other and live long: a full collection walks all of them and frees nothing, and
the more of them there are, the more often that happens.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused_collector() -> Iterator[None]:
    """Within the block no automatic collection runs; reference counting goes on. Blocks may be nested."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()

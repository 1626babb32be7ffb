"""The ops that detc declares itself. Importing this package registers them."""

from . import boxes, instances, masks, pooling, proposals

__all__ = ["boxes", "instances", "masks", "pooling", "proposals"]

"""The ops that detc declares itself. Importing this package registers them."""

from . import boxes, dense, instances, masks, points, pooling, proposals, segmentation

__all__ = ["boxes", "dense", "instances", "masks", "points", "pooling", "proposals", "segmentation"]

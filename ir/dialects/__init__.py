"""The ops that detc declares itself. Importing this package registers them."""

from . import (
    boxes,
    dense,
    instances,
    keypoints,
    masks,
    points,
    pooling,
    postprocess,
    proposals,
    segmentation,
)

__all__ = [
    "boxes",
    "dense",
    "instances",
    "keypoints",
    "masks",
    "points",
    "pooling",
    "postprocess",
    "proposals",
    "segmentation",
]

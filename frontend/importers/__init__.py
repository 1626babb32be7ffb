"""The importers of detectron2's components. Importing this package registers them."""

from . import dense, pointrend, rcnn, roi_heads, rpn, segmentation

__all__ = ["dense", "pointrend", "rcnn", "roi_heads", "rpn", "segmentation"]

"""The importers of detectron2's components. Importing this package registers them."""

from . import pointrend, rcnn, roi_heads, rpn, segmentation

__all__ = ["pointrend", "rcnn", "roi_heads", "rpn", "segmentation"]

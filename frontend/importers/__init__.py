"""The importers of detectron2's components. Importing this package registers them."""

from . import rcnn, roi_heads, rpn

__all__ = ["rcnn", "roi_heads", "rpn"]

"""Caffe2: lowering to its operators, emitting nets, running them without Caffe2, and reading them back."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

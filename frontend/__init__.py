"""From a model to the IR: `load_model` builds detectron2's models, `capture` turns a model into a graph."""

from . import importers
from .capture import AssumptionWarning, Capture, Images, capture, importer
from .detectron2 import load_model, register

__all__ = [
    "AssumptionWarning",
    "Capture",
    "Images",
    "capture",
    "importer",
    "importers",
    "load_model",
    "register",
]

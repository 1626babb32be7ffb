"""One HTML file that shows what a pipeline did to a graph. It needs no network and no server."""

from .collect import Recorder
from .page import write_report

__all__ = ["Recorder", "write_report"]

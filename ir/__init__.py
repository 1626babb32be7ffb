"""The IR: typed SSA graphs of detection models.

`Graph`, `Node`, `Value` are the structure; `types` and `dims` what values look like; `op` declares
operations; `Builder` makes nodes; `verify`, `print_graph`, `parse_graph` and `run` check, show, read and
execute a graph.
"""

import lazy_loader

# The names stand in __init__.pyi, and are imported when they are first used: torch takes seconds.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

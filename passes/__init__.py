"""Passes: IR in, IR out.

A `Pass` changes a graph; a `Pipeline` runs passes in order under the eyes of `Observer`s. Rewrites are
written as `RewriteRule`s and applied by `apply_rules`; lowerings to a target as a table, by `Conversion`.
"""

import lazy_loader

# The names stand in __init__.pyi, and are imported when they are first used: torch takes seconds.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

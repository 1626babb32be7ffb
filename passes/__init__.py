"""Passes: IR in, IR out.

A `Pass` changes a graph; a `Pipeline` runs passes in order under the eyes of `Observer`s. Rewrites are
written as `RewriteRule`s and applied by `apply_rules`; lowerings to a target as a table, by `Conversion`.
"""

from .anchors import FuseAnchors
from .base import Context, NoMatch, Pass, PassRun, RuleCount, attribute, erase_if_unused
from .batch_norm import FoldBatchNorm
from .bisect import Culprit, Rewrite, bisect
from .canonicalize import Canonicalize
from .cleanup import CommonSubexpressions, DeadCode
from .compare import (
    DetectionReport,
    Mismatch,
    Reference,
    Tolerances,
    compare,
    compare_detections,
    detection_groups,
    flatten_outputs,
)
from .constants import FoldConstants
from .conversion import Conversion, LoweringRule, Sizes
from .dump import DumpIR
from .files import load_graph, load_inputs, save_graph
from .fuse import Fuse
from .honesty import ExpensiveChecks, HonestyError
from .instances import FLAT_NAMES, FlattenInstances, flat_names
from .numerics import CheckNumerics, DivergenceError, PassReport
from .observers import CountNodes, Observer, PrintAfter, PrintBefore, PrintChanged, Timing, VerifyEach
from .patterns import Match, NodePattern, Pattern, PatternBuilder
from .pipeline import PassError, Pipeline
from .postprocess import DecomposePostprocess, KeepRoiMasks, RemovePostprocess
from .reduce import Reproducer, reduce
from .registry import (
    find_pass,
    known_passes,
    load_entry_points,
    load_pass_file,
    parse_pass,
    parse_passes,
    run_python_file,
)
from .rewrite import RewriteRule, apply_rules, summaries
from .rpn_head import FuseRpnHead
from .slicing import Slice, extract

__all__ = [
    "FLAT_NAMES",
    "Canonicalize",
    "CheckNumerics",
    "CommonSubexpressions",
    "Context",
    "Conversion",
    "CountNodes",
    "Culprit",
    "DeadCode",
    "DecomposePostprocess",
    "DetectionReport",
    "DivergenceError",
    "DumpIR",
    "ExpensiveChecks",
    "FlattenInstances",
    "FoldBatchNorm",
    "FoldConstants",
    "Fuse",
    "FuseAnchors",
    "FuseRpnHead",
    "HonestyError",
    "KeepRoiMasks",
    "LoweringRule",
    "Match",
    "Mismatch",
    "NoMatch",
    "NodePattern",
    "Observer",
    "Pass",
    "PassError",
    "PassReport",
    "PassRun",
    "Pattern",
    "PatternBuilder",
    "Pipeline",
    "PrintAfter",
    "PrintBefore",
    "PrintChanged",
    "Reference",
    "RemovePostprocess",
    "Reproducer",
    "Rewrite",
    "RewriteRule",
    "RuleCount",
    "Sizes",
    "Slice",
    "Timing",
    "Tolerances",
    "VerifyEach",
    "apply_rules",
    "attribute",
    "bisect",
    "compare",
    "compare_detections",
    "detection_groups",
    "erase_if_unused",
    "extract",
    "find_pass",
    "flat_names",
    "flatten_outputs",
    "known_passes",
    "load_entry_points",
    "load_graph",
    "load_inputs",
    "load_pass_file",
    "parse_pass",
    "parse_passes",
    "reduce",
    "run_python_file",
    "save_graph",
    "summaries",
]

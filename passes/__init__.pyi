from .core.base import (
    Context,
    NoMatch,
    Pass,
    PassRun,
    RuleCount,
    attribute,
    erase_if_unused,
)
from .core.files import load_graph, load_inputs, save_graph
from .core.observers import (
    CountNodes,
    Observer,
    PrintAfter,
    PrintBefore,
    PrintChanged,
    Timing,
    VerifyEach,
)
from .core.pipeline import PassError, Pipeline
from .core.registry import (
    find_pass,
    known_passes,
    load_entry_points,
    load_pass_file,
    parse_pass,
    parse_passes,
    run_python_file,
)
from .debug.bisect import Culprit, Rewrite, bisect
from .debug.compare import (
    DetectionReport,
    Mismatch,
    Reference,
    Tolerances,
    compare,
    compare_detections,
)
from .debug.dump import DumpIR
from .debug.honesty import ExpensiveChecks, HonestyError
from .debug.numerics import CheckNumerics, DivergenceError, PassReport
from .debug.outputs import detection_groups, flatten_outputs
from .debug.reduce import Reproducer, reduce
from .debug.slicing import Slice, extract
from .detection.anchors import FuseAnchors
from .detection.decompose import Decompose
from .detection.instances import FLAT_NAMES, FlattenInstances, flat_names
from .detection.postprocess import DecomposePostprocess, KeepRoiMasks, RemovePostprocess
from .detection.rpn_head import FuseRpnHead
from .generic.batch_norm import FoldBatchNorm
from .generic.canonicalize import Canonicalize
from .generic.cleanup import CommonSubexpressions, DeadCode
from .generic.constants import FoldConstants
from .generic.fuse import Fuse
from .rewrite.conversion import Conversion, LoweringRule, Sizes
from .rewrite.patterns import Each, Match, NodePattern, Pattern, PatternBuilder
from .rewrite.rules import RewriteRule, apply_rules, summaries

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
    "Decompose",
    "DecomposePostprocess",
    "DetectionReport",
    "DivergenceError",
    "DumpIR",
    "Each",
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

"""Det ops whose own bodies torch compiles, loops and all."""

from __future__ import annotations

from typing import Any

from detc.ir import Builder, Node
from detc.passes.rewrite.conversion import LoweringRule

from ..dialect import DIALECT


def scripted(b: Builder, node: Node) -> Any:
    """The rule for a det op whose own body torch compiles."""
    return b.call(node.op.name.replace("det.", f"{DIALECT}.", 1), *node.operands, **node.attributes)


TABLE: dict[str, LoweringRule] = {
    # A box at a time: only its resized maps are held.
    "det.keypoint_inference": scripted,
    # Images differ in what is cut off and in their output's size; an instance's turn depends on those before it.
    "det.sem_seg_postprocess": scripted,
    "det.panoptic_combine": scripted,
}

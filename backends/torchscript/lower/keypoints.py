"""Lowering of `det.*` on keypoints."""

from __future__ import annotations

from detc.ir import Builder, Node, Value
from detc.passes.rewrite.conversion import LoweringRule

from .common import cast, columns, rows, scripted, whwh


def rescale_keypoints(b: Builder, node: Node) -> Value:
    """x and y with each keypoint's own image's factors."""
    keypoints, batch_index, im_info, output_size = (node.operand(i) for i in range(4))
    target = whwh(b, cast(b, output_size, keypoints.dtype))
    factors = columns(b, b.aten.div.Tensor(target, whwh(b, im_info)), 0, 2, 1)  # [N, 2]: x, y
    own = b.aten.unsqueeze(rows(b, factors, batch_index), dim=1)
    moved = b.aten.mul.Tensor(columns(b, keypoints, 0, 2), own)
    made: Value = b.aten.cat([moved, columns(b, keypoints, 2, 3)], dim=-1)
    return made


TABLE: dict[str, LoweringRule] = {
    # A box at a time: only its resized maps are held.
    "det.keypoint_inference": scripted,
    "det.rescale_keypoints": rescale_keypoints,
}

"""What a written module calls beside torch's operators: functions with loops, which torch compiles with the module.

They are Python that torch.jit.script takes, and so part of the file.
"""

from detc.ir.dialects.keypoints import keypoint_inference
from detc.ir.dialects.rotated_kernels import nms_rotated_by_group, roi_align_rotated_by_level
from detc.ir.dialects.segmentation import panoptic_combine, sem_seg_postprocess

__all__ = [
    "keypoint_inference",
    "nms_rotated_by_group",
    "panoptic_combine",
    "roi_align_rotated_by_level",
    "sem_seg_postprocess",
]

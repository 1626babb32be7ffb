"""detectron2's default value for every config key that inference reads, and PointRend's.

The values are those of detectron2's `config/defaults.py` and of PointRend's `add_pointrend_config`. Keys that
only training reads are not listed: they are kept as a config gives them, unchecked. What is a list and what a
tuple is as in detectron2 (a config may write either).
"""

from __future__ import annotations

from typing import Any

_RESNETS: dict[str, Any] = {
    "DEPTH": 50,
    "OUT_FEATURES": ["res4"],
    "NUM_GROUPS": 1,
    "NORM": "FrozenBN",
    "WIDTH_PER_GROUP": 64,
    "STRIDE_IN_1X1": True,
    "RES5_DILATION": 1,
    "RES2_OUT_CHANNELS": 256,
    "STEM_OUT_CHANNELS": 64,
    "DEFORM_ON_PER_STAGE": [False, False, False, False],
    "DEFORM_MODULATED": False,
    "DEFORM_NUM_GROUPS": 1,
}

_ANCHOR_GENERATOR: dict[str, Any] = {
    "NAME": "DefaultAnchorGenerator",
    "SIZES": [[32, 64, 128, 256, 512]],
    "ASPECT_RATIOS": [[0.5, 1.0, 2.0]],
    "ANGLES": [[-90, 0, 90]],
    "OFFSET": 0.0,
}

_RPN: dict[str, Any] = {
    "HEAD_NAME": "StandardRPNHead",
    "IN_FEATURES": ["res4"],
    "BBOX_REG_WEIGHTS": (1.0, 1.0, 1.0, 1.0),
    "PRE_NMS_TOPK_TRAIN": 12000,
    "PRE_NMS_TOPK_TEST": 6000,
    "POST_NMS_TOPK_TRAIN": 2000,
    "POST_NMS_TOPK_TEST": 1000,
    "NMS_THRESH": 0.7,
    "CONV_DIMS": [-1],
}

_ROI_BOX_HEAD: dict[str, Any] = {
    "NAME": "",
    "BBOX_REG_WEIGHTS": (10.0, 10.0, 5.0, 5.0),
    "POOLER_RESOLUTION": 14,
    "POOLER_SAMPLING_RATIO": 0,
    "POOLER_TYPE": "ROIAlignV2",
    "NUM_FC": 0,
    "FC_DIM": 1024,
    "NUM_CONV": 0,
    "CONV_DIM": 256,
    "NORM": "",
    "CLS_AGNOSTIC_BBOX_REG": False,
    "USE_SIGMOID_CE": False,
}

_ROI_MASK_HEAD: dict[str, Any] = {
    "NAME": "MaskRCNNConvUpsampleHead",
    "POOLER_RESOLUTION": 14,
    "POOLER_SAMPLING_RATIO": 0,
    "POOLER_TYPE": "ROIAlignV2",
    "NUM_CONV": 0,
    "CONV_DIM": 256,
    "NORM": "",
    "CLS_AGNOSTIC_MASK": False,
    # PointRend's coarse mask head.
    "IN_FEATURES": ("p2",),
    "FC_DIM": 1024,
    "NUM_FC": 2,
    "OUTPUT_SIDE_RESOLUTION": 7,
    "POINT_HEAD_ON": False,
}

_ROI_KEYPOINT_HEAD: dict[str, Any] = {
    "NAME": "KRCNNConvDeconvUpsampleHead",
    "POOLER_RESOLUTION": 14,
    "POOLER_SAMPLING_RATIO": 0,
    "POOLER_TYPE": "ROIAlignV2",
    "CONV_DIMS": (512,) * 8,
    "NUM_KEYPOINTS": 17,
}

_SEM_SEG_HEAD: dict[str, Any] = {
    "NAME": "SemSegFPNHead",
    "IN_FEATURES": ["p2", "p3", "p4", "p5"],
    "IGNORE_VALUE": 255,
    "NUM_CLASSES": 54,
    "CONVS_DIM": 128,
    "COMMON_STRIDE": 4,
    "NORM": "GN",
}

_RETINANET: dict[str, Any] = {
    "NUM_CLASSES": 80,
    "IN_FEATURES": ["p3", "p4", "p5", "p6", "p7"],
    "NUM_CONVS": 4,
    "SCORE_THRESH_TEST": 0.05,
    "TOPK_CANDIDATES_TEST": 1000,
    "NMS_THRESH_TEST": 0.5,
    "BBOX_REG_WEIGHTS": (1.0, 1.0, 1.0, 1.0),
    "NORM": "",
}

_POINT_HEAD: dict[str, Any] = {
    "NAME": "StandardPointHead",
    "NUM_CLASSES": 80,
    "IN_FEATURES": ("p2",),
    "SUBDIVISION_STEPS": 5,
    "SUBDIVISION_NUM_POINTS": 784,
    "FC_DIM": 256,
    "NUM_FC": 3,
    "CLS_AGNOSTIC_MASK": False,
    "COARSE_PRED_EACH_LAYER": True,
    "COARSE_SEM_SEG_HEAD_NAME": "SemSegFPNHead",
}

_MODEL: dict[str, Any] = {
    "LOAD_PROPOSALS": False,
    "MASK_ON": False,
    "KEYPOINT_ON": False,
    "DEVICE": "cuda",
    "META_ARCHITECTURE": "GeneralizedRCNN",
    "WEIGHTS": "",
    "PIXEL_MEAN": [103.530, 116.280, 123.675],
    "PIXEL_STD": [1.0, 1.0, 1.0],
    "BACKBONE": {"NAME": "build_resnet_backbone", "FREEZE_AT": 2},
    "FPN": {"IN_FEATURES": [], "OUT_CHANNELS": 256, "NORM": "", "FUSE_TYPE": "sum"},
    "PROPOSAL_GENERATOR": {"NAME": "RPN", "MIN_SIZE": 0},
    "ANCHOR_GENERATOR": _ANCHOR_GENERATOR,
    "RPN": _RPN,
    "ROI_HEADS": {
        "NAME": "Res5ROIHeads",
        "NUM_CLASSES": 80,
        "IN_FEATURES": ["res4"],
        "SCORE_THRESH_TEST": 0.05,
        "NMS_THRESH_TEST": 0.5,
    },
    "ROI_BOX_HEAD": _ROI_BOX_HEAD,
    "ROI_BOX_CASCADE_HEAD": {
        "BBOX_REG_WEIGHTS": ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0)),
        "IOUS": (0.5, 0.6, 0.7),
    },
    "ROI_MASK_HEAD": _ROI_MASK_HEAD,
    "ROI_KEYPOINT_HEAD": _ROI_KEYPOINT_HEAD,
    "SEM_SEG_HEAD": _SEM_SEG_HEAD,
    "PANOPTIC_FPN": {
        "COMBINE": {
            "ENABLED": True,
            "OVERLAP_THRESH": 0.5,
            "STUFF_AREA_LIMIT": 4096,
            "INSTANCES_CONFIDENCE_THRESH": 0.5,
        },
    },
    "RETINANET": _RETINANET,
    "RESNETS": _RESNETS,
    "POINT_HEAD": _POINT_HEAD,
    "IMPLICIT_POINTREND": {"IMAGE_FEATURE_ENABLED": True, "POS_ENC_ENABLED": True},
}

DEFAULTS: dict[str, Any] = {
    "VERSION": 2,
    "MODEL": _MODEL,
    "INPUT": {"MIN_SIZE_TEST": 800, "MAX_SIZE_TEST": 1333, "FORMAT": "BGR"},
    "DATASETS": {"TRAIN": (), "TEST": ()},
    "TEST": {"DETECTIONS_PER_IMAGE": 100},
}

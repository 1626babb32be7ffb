"""Components of one's own, built where a config names them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import InputError
from .build import BACKBONES, META_ARCHITECTURES
from .build_heads import (
    ANCHOR_GENERATORS,
    PROPOSAL_GENERATORS,
    ROI_BOX_HEADS,
    ROI_HEADS,
    ROI_KEYPOINT_HEADS,
    ROI_MASK_HEADS,
    RPN_HEADS,
)
from .build_semantic import SEM_SEG_HEADS

B = TypeVar("B", bound=Callable[..., Any])

REGISTRIES: dict[str, dict[str, Any]] = {
    "MODEL.META_ARCHITECTURE": META_ARCHITECTURES,
    "MODEL.BACKBONE.NAME": BACKBONES,
    "MODEL.PROPOSAL_GENERATOR.NAME": PROPOSAL_GENERATORS,
    "MODEL.RPN.HEAD_NAME": RPN_HEADS,
    "MODEL.ANCHOR_GENERATOR.NAME": ANCHOR_GENERATORS,
    "MODEL.ROI_HEADS.NAME": ROI_HEADS,
    "MODEL.ROI_BOX_HEAD.NAME": ROI_BOX_HEADS,
    "MODEL.ROI_MASK_HEAD.NAME": ROI_MASK_HEADS,
    "MODEL.ROI_KEYPOINT_HEAD.NAME": ROI_KEYPOINT_HEADS,
    "MODEL.SEM_SEG_HEAD.NAME": SEM_SEG_HEADS,
}
"""Config key -> what builds the component, by the name that stands there."""
_BUILT_IN = {key: frozenset(registry) for key, registry in REGISTRIES.items()}


def register(key: str, name: str = "") -> Callable[[B], B]:
    """Register a class, or a function, that builds the component which a config names at `key`.

        @detc.register("MODEL.BACKBONE.NAME")
        class MyBackbone(Backbone):
            def __init__(self, cfg, input_shape):
                ...

    `name` is what stands in the config; by default the class's own name. It is called as detectron2 calls what is in
    its registries: a backbone and a head for regions with (cfg, ShapeSpec) of the image or of a region's features, a
    proposal generator, ROI heads and a segmentation head with (cfg, {feature: ShapeSpec}), an RPN's head and an anchor
    generator with (cfg, [ShapeSpec]), a meta-architecture with (cfg).

    Errors:
        InputError: there is no such key, or detectron2 has a component of that name.
    """
    if key not in REGISTRIES:
        raise InputError(f"no components are registered for {key!r}; there are {', '.join(REGISTRIES)}")

    def add(build: B) -> B:
        own = name or build.__name__
        if own in _BUILT_IN[key]:
            raise InputError(f"{key} {own!r} is a component of detectron2's; choose another name")
        # Registered again: a notebook's cell is run twice.
        REGISTRIES[key][own] = build
        return build

    return add

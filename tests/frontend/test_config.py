"""Configs: detectron2's own, and what can be wrong with a user's."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch

from detc.frontend.detectron2 import Config, build_model, load_config
from detc.frontend.errors import InputError
from tests import zoo


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_every_config_of_detectron2_loads_and_builds() -> None:
    paths = zoo.detectron2_configs()
    assert len(paths) == 76
    for path in paths:
        cfg = load_config(path)
        with torch.device("meta"):  # full-size networks, without their memory
            model = build_model(cfg)
        assert model.cfg is cfg
        assert not model.training
        assert not any(parameter.requires_grad for parameter in model.parameters())


def test_base_chain_defaults_and_literals() -> None:
    cfg = load_config(zoo.CONFIGS / "configs/Misc/scratch_mask_rcnn_R_50_FPN_9x_gn.yaml")
    assert cfg.MODEL.RESNETS.NORM == "GN"  # two files up
    assert cfg["MODEL"]["RPN"]["PRE_NMS_TOPK_TEST"] == 1000  # three files up
    assert cfg.MODEL.RPN.NMS_THRESH == 0.7  # a default
    assert cfg.SOLVER.STEPS == (187500, 197500)  # kept, though only training reads it
    assert cfg.INPUT.MIN_SIZE_TRAIN == (640, 672, 704, 736, 768, 800)


def test_arithmetic_of_detectron2s_retinanet_is_computed_but_not_run() -> None:
    sizes = load_config(zoo.CONFIGS / "configs/Base-RetinaNet.yaml").MODEL.ANCHOR_GENERATOR.SIZES
    assert sizes == [[x, x * 2 ** (1.0 / 3), x * 2 ** (2.0 / 3)] for x in [32, 64, 128, 256, 512]]


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.mkdir [{target}]",
        "!!python/object/new:os.mkdir [{target}]",
        "!!python/object/apply:eval [\"__import__('os').mkdir('{target}')\"]",
        '!!python/object/apply:eval ["[c for c in ().__class__.__base__.__subclasses__()]"]',
        "!!python/object/apply:eval [\"open('{target}', 'w')\"]",
        '!!python/object/apply:eval ["10 ** 10 ** 10"]',
        '!!python/object/apply:eval ["[0 for a in [1]*9 for b in x]"]',
        "!!python/object/apply:eval [[1], 2]",
        "!!python/name:os.system",
        "!!python/module:os",
        "!!python/object:subprocess.Popen {{}}",
    ],
)
def test_yaml_tags_run_no_code(tmp_path: Path, value: str) -> None:
    target = tmp_path / "made"
    path = write(tmp_path / "evil.yaml", f"MODEL:\n  X: {value.format(target=target)}\n")
    with pytest.raises(InputError, match=r"evil\.yaml, line 2.*would run code"):
        load_config(path)
    assert not target.exists()


def test_huge_comprehension_is_refused(tmp_path: Path) -> None:
    tens = str(list(range(10)))
    loops = " ".join(f"for x{k} in {tens}" for k in range(8))
    path = write(tmp_path / "big.yaml", f'X: !!python/object/apply:eval ["[0 {loops}]"]\n')
    with pytest.raises(InputError, match="more than 10000 values"):
        load_config(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("MODEL: [unclosed\n", r"c\.yaml, line 2"),
        ("- a\n- b\n", r"c\.yaml is not a detectron2 config: it holds a list"),
        ("MODEL:\n  RPN: 3\n", r"c\.yaml: MODEL\.RPN must be of type section"),
        ("MODEL:\n  MASK_ON: 3\n", r"c\.yaml: MODEL\.MASK_ON must be of type bool .*not int: 3"),
        ("MODEL:\n  RPN:\n    NMS_THRESH: high\n", r"MODEL\.RPN\.NMS_THRESH must be of type float .*'high'"),
        (
            "MODEL:\n  RPN:\n    POST_NMS_TOPK_TEST: 10.5\n",
            r"MODEL\.RPN\.POST_NMS_TOPK_TEST must be of type int",
        ),
        ("MODEL:\n  WEIGHTS: {a: 1}\n", r"MODEL\.WEIGHTS must be of type str .*not section"),
        ("MODEL: {1: 2}\n", r"the key MODEL\.1 is not a string"),
        ("VERSION: 1\n", r"c\.yaml is a detectron2 config of version 1"),
        ("MODEL:\n  WEIGHT: x\n", r"version 1"),
        ("VERSION: 3\n", r"VERSION 3 is not known"),
        ("_BASE_: missing.yaml\n", r"its _BASE_ missing\.yaml does not exist"),
        ("_BASE_: [a.yaml, b.yaml]\n", r"_BASE_ must be one path, not a list"),
        ("_BASE_: https://example.com/a.yaml\n", r"download it"),
        ("_BASE_: c.yaml\n", r"are each other's _BASE_: .*c\.yaml -> .*c\.yaml"),
        ("a: &a {b: *a}\n", r"c\.yaml"),
    ],
)
def test_bad_configs_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "c.yaml", text)
    with pytest.raises(InputError, match=message):
        load_config(path)


def test_cycle_over_two_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write(tmp_path / "sub" / "a.yaml", "_BASE_: ../b.yaml\n")
    write(tmp_path / "b.yaml", "_BASE_: sub/a.yaml\n")
    with pytest.raises(InputError, match=r"b\.yaml -> .*a\.yaml -> .*b\.yaml"):
        load_config(tmp_path / "b.yaml")


def test_section_over_a_plain_value_of_the_base(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", "EXTRA: 1\n")
    path = write(tmp_path / "c.yaml", "_BASE_: base.yaml\nEXTRA: {A: 1}\n")
    with pytest.raises(InputError, match=r"c\.yaml: EXTRA is a section, but a plain value in its _BASE_"):
        load_config(path)


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read the config .*nothing\.yaml"):
        load_config(tmp_path / "nothing.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError, match="not UTF-8"):
        load_config(tmp_path / "binary.yaml")
    with pytest.raises(InputError, match="LazyConfig"):
        load_config(tmp_path / "config.py")


def test_values_are_read_as_yacs_reads_them(tmp_path: Path) -> None:
    text = """
MODEL:
  RPN:
    NMS_THRESH: 1e-5
    BBOX_REG_WEIGHTS: [2, 2, 1, 1]
    IN_FEATURES: ("p2", "p3")
  PIXEL_STD: (1.0, 2.0, 3.0)
  ROI_HEADS: {SCORE_THRESH_TEST: 0}
  MY_OWN: {KEY: "[1, 'a']", NAME: plain}
  WEIGHTS: "null and void"
TOP: !!python/tuple [1, 2]
"""
    cfg = load_config(write(tmp_path / "c.yaml", text))
    assert cfg.MODEL.RPN.NMS_THRESH == 1e-5  # a string to YAML
    assert cfg.MODEL.RPN.BBOX_REG_WEIGHTS == (2, 2, 1, 1)  # a tuple, as the default is
    assert cfg.MODEL.RPN.IN_FEATURES == ["p2", "p3"]
    assert cfg.MODEL.PIXEL_STD == [1.0, 2.0, 3.0]
    assert cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST == 0.0
    assert isinstance(cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST, float)
    assert cfg.MODEL.MY_OWN.KEY == [1, "a"] and cfg.MODEL.MY_OWN.NAME == "plain"
    assert cfg.MODEL.WEIGHTS == "null and void"
    assert cfg.TOP == (1, 2)


def test_missing_key_names_key_and_file(tmp_path: Path) -> None:
    cfg = load_config(write(tmp_path / "c.yaml", "{}"))
    for access in (lambda: cfg.MODEL.RPN.NOTHING, lambda: cfg["MODEL"]["RPN"]["NOTHING"]):
        with pytest.raises(InputError, match=r"c\.yaml has no key MODEL\.RPN\.NOTHING$"):
            access()
    assert not hasattr(cfg, "NOTHING") and cfg.get("NOTHING", 5) == 5


def test_config_is_a_mapping_that_copies_dumps_and_merges(tmp_path: Path) -> None:
    cfg = load_config({"MODEL": {"MASK_ON": True}, "_BASE_": str(zoo.CONFIGS / "configs/Base-RCNN-FPN.yaml")})
    assert cfg.MODEL.MASK_ON is True and cfg.MODEL.ROI_HEADS.NAME == "StandardROIHeads"
    assert load_config(cfg) == cfg == copy.deepcopy(cfg) == pickle.loads(pickle.dumps(cfg))
    assert load_config(write(tmp_path / "dump.yaml", cfg.dump())).dump() == cfg.dump()
    clone = cfg.clone()
    clone.merge_from_list(["MODEL.RPN.NMS_THRESH", "0.5", "TEST.DETECTIONS_PER_IMAGE", 7])
    clone.MODEL.NEW = {"A": {"B": 1}}
    assert isinstance(clone.MODEL.NEW.A, Config) and clone.MODEL.NEW.A.B == 1
    assert (clone.MODEL.RPN.NMS_THRESH, clone.TEST.DETECTIONS_PER_IMAGE) == (0.5, 7)
    assert (cfg.MODEL.RPN.NMS_THRESH, cfg.TEST.DETECTIONS_PER_IMAGE) == (0.7, 100)
    with pytest.raises(InputError, match=r"no key MODEL\.RPN\.NOPE"):
        clone.merge_from_list(["MODEL.RPN.NOPE", 1])
    with pytest.raises(InputError, match="pairs"):
        clone.merge_from_list(["MODEL.RPN.NMS_THRESH"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["MODEL.META_ARCHITECTURE", "YOLO"], r"MODEL\.META_ARCHITECTURE 'YOLO' .*GeneralizedRCNN"),
        (["MODEL.BACKBONE.NAME", "vit"], r"MODEL\.BACKBONE\.NAME 'vit' .*build_resnet_fpn_backbone"),
        (["MODEL.PROPOSAL_GENERATOR.NAME", "X"], r"MODEL\.PROPOSAL_GENERATOR\.NAME 'X' .*RPN, RRPN"),
        (["MODEL.RPN.HEAD_NAME", "X"], r"MODEL\.RPN\.HEAD_NAME 'X' .*StandardRPNHead"),
        (["MODEL.ROI_HEADS.NAME", "X"], r"MODEL\.ROI_HEADS\.NAME 'X' .*StandardROIHeads"),
        (["MODEL.ROI_BOX_HEAD.NAME", "X"], r"MODEL\.ROI_BOX_HEAD\.NAME 'X' .*FastRCNNConvFCHead"),
        (["MODEL.ROI_MASK_HEAD.NAME", "X"], r"MODEL\.ROI_MASK_HEAD\.NAME 'X' .*MaskRCNNConvUpsampleHead"),
        (["MODEL.ROI_BOX_HEAD.POOLER_TYPE", "X"], "POOLER_TYPE 'X' .*ROIAlignV2"),
        (["MODEL.ANCHOR_GENERATOR.NAME", "X"], r"ANCHOR_GENERATOR\.NAME 'X' .*RotatedAnchorGenerator"),
        (["MODEL.RESNETS.DEPTH", 77], r"RESNETS\.DEPTH 77 .*50, 101"),
        (["MODEL.RESNETS.NORM", "XN"], "NORM 'XN' .*FrozenBN"),
        (["MODEL.RESNETS.DEPTH", 18], r"RES2_OUT_CHANNELS must be 64 with DEPTH 18"),
        (["MODEL.ROI_HEADS.IN_FEATURES", ["p9"]], r"ROI_HEADS\.IN_FEATURES names 'p9', but .*p2, p3"),
        (["MODEL.ROI_HEADS.IN_FEATURES", ["p2", "p4"]], "double from level to level"),
        (["MODEL.RPN.BBOX_REG_WEIGHTS", [1.0]], r"RPN\.BBOX_REG_WEIGHTS must have 4 numbers"),
        (["MODEL.ANCHOR_GENERATOR.SIZES", [[8], [16]]], "SIZES has 2 lists for 5 feature levels"),
        (["MODEL.FPN.FUSE_TYPE", "max"], "FUSE_TYPE 'max'"),
        (["MODEL.PIXEL_MEAN", [1.0]], "PIXEL_MEAN and PIXEL_STD differ in length"),
        (["MODEL.ROI_HEADS.NAME", "CascadeROIHeads"], "CLS_AGNOSTIC_BBOX_REG: True"),
        (["MODEL.ROI_HEADS.NAME", "RROIHeads"], "no masks or keypoints"),
        (["MODEL.ROI_MASK_HEAD.NAME", "PointRendMaskHead"], "POOLER_TYPE"),
    ],
)
def test_unsupported_components_are_named(options: list[object], message: str) -> None:
    cfg = load_config(zoo.config_path("mask_rcnn_R_50_FPN"))
    cfg.merge_from_list(options)
    with torch.device("meta"), pytest.raises(InputError, match=message):
        build_model(cfg)

"""The formats of published weights: their layouts, and the model that tensors of our names and layouts show."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from afno_repro.config import ModelConfig, Part
from afno_repro.errors import ConfigError, Problem
from afno_repro.weights.layouts import AFNO, GFNET, RESNET, SEGFORMER, SWIN, Layout
from afno_repro.weights.load import Weights

PRETRAINED_AT = 224  # pixels; no tensor of a convolution or a window tells


@dataclass(frozen=True)
class Told:
    """What no tensor tells: asked for by whoever converts, or among the arguments of the script that trained."""

    residuals: int | None = None  # in a block of AFNO's
    num_heads: tuple[int, ...] | None = None  # of SegFormer's four stages
    args: Mapping[str, Any] = field(default_factory=dict)


class Format(NamedTuple):
    """A family of networks: how it is spelled, what model tensors show, which options say what no tensor tells."""

    layouts: Sequence[Layout]
    model: Callable[[Weights, Told], tuple[ModelConfig, int]]
    takes: tuple[str, ...] = ()


def _count(weights: Weights, prefix: str) -> int:
    return sum(name.startswith(prefix) and name.endswith((".norm1.weight", ".bn1.weight")) for name in weights)


def _head(weights: Weights) -> Part:
    """The head that the weights hold; without one, SegFormer's for Cityscapes (768 wide, 19 classes), untrained."""
    if "head.project.weight" in weights and "head.classify.weight" not in weights:
        return Part("classification", {"num_classes": len(weights["head.project.weight"])})
    width, classes = (
        len(weights[name]) if name in weights else size
        for name, size in {"head.fuse.0.weight": 768, "head.classify.weight": 19}.items()
    )
    return Part("segformer", {"embed_dim": width, "dropout": 0.1, "num_classes": classes})


def _segformer(weights: Weights, told: Told) -> tuple[ModelConfig, int]:
    stages = [f"backbone.stages.{stage}." for stage in range(4)]
    dims = [len(weights[stage + "0.project.weight"]) for stage in stages]
    depths = [_count(weights, stage) for stage in stages]
    ratio = len(weights[stages[0] + "1.mlp.expand.weight"]) // dims[0]
    reducing = [weights.get(stage + "1.mixer.reduce.weight") for stage in stages]
    published = tuple(depths) in MIT.get(tuple(dims), ())
    if told.num_heads is None and not published:
        sizes = f"widths {dims} and depths {depths}"
        hint = "say how many attention heads each stage has, as --num-heads 1,2,5,8"
        raise ConfigError(
            Problem(f"no tensor tells the number of heads, and {sizes} are none of MiT-B0 to B5", (), hint)
        )
    mixer = Part(
        "efficient_self_attention",
        {
            "num_heads": list(told.num_heads or (1, 2, 5, 8)),
            "reduction": [1 if r is None else r.shape[-1] for r in reducing],
        },
    )
    options = {"embed_dims": dims, "depths": depths, "mlp_ratio": ratio, "learned_at": PRETRAINED_AT}
    return ModelConfig(Part("segformer", options), mixer, _head(weights)), PRETRAINED_AT


MIT: dict[
    tuple[int, ...], tuple[tuple[int, ...], ...]
] = {  # widths: depths of MiT-B0, of B1 to B5, whose stages have 1, 2, 5 and 8 heads (Xie et al. 2021)
    (32, 64, 160, 256): ((2, 2, 2, 2),),
    (64, 128, 320, 512): ((2, 2, 2, 2), (3, 4, 6, 3), (3, 4, 18, 3), (3, 8, 27, 3), (3, 6, 40, 3)),
}


def _vit(weights: Weights, mixer: Part, skips: int) -> tuple[ModelConfig, int]:
    patches, ratio = weights["backbone.embed.project.weight"], len(weights["backbone.blocks.0.mlp.0.weight"])
    depth, dim, patch = _count(weights, "backbone.blocks."), len(patches), patches.shape[-1]
    options = {"patch_size": patch, "embed_dim": dim, "depth": depth, "mlp_ratio": ratio // dim, "skips": skips}
    size = patch * weights["backbone.positions.table"].shape[1]
    return ModelConfig(Part("vit", options), mixer, _head(weights)), size


def _gfnet(weights: Weights, told: Told) -> tuple[ModelConfig, int]:
    """One residual a block (Rao et al. 2021)."""
    return _vit(weights, Part("gfn", {}), skips=1)


def _afno(weights: Weights, told: Told) -> tuple[ModelConfig, int]:
    """Threshold 0.01, all modes and 0.02 randn as initial weights, as published; one residual or two.

    With a convolution as bias the threshold is an argument of the training script.
    """
    said = 1 + bool(told.args["double_skip"]) if "double_skip" in told.args else None
    skips = said or told.residuals
    if said and told.residuals not in (None, said):
        raise ConfigError(Problem(f"the file's own arguments say --residuals {said}", (), "leave --residuals out"))
    if skips is None:
        hint = "say it: --residuals 1, or 2 where it was trained with --double-skip"
        raise ConfigError(Problem("neither a tensor nor an argument in the file tells a block's residuals", (), hint))
    convolution = "backbone.blocks.0.mixer.bias.weight" in weights
    mixer = {
        "num_blocks": len(weights["backbone.blocks.0.mixer.w1"]),
        "sparsity_threshold": told.args.get("fno_softshrink", 0.01) if convolution else 0.01,
        "keep": 1.0,
        "bias": "conv" if convolution else "identity",
        "init_std": 0.02,
    }
    return _vit(weights, Part("afno", mixer), skips)


def _swin(weights: Weights, told: Told) -> tuple[ModelConfig, int]:
    """Heads and window from the tables of relative positions, (2 window - 1)^2 x heads; the drop path as published."""
    blocks = [f"backbone.stages.{stage}.{2 * stage + 1}." for stage in range(4)]
    tables = [weights[f"{stage}0.attn.relative_position_bias_table"] for stage in blocks]
    dim, depths = len(weights["backbone.stages.0.0.0.weight"]), [_count(weights, stage) for stage in blocks]
    window = (math.isqrt(len(tables[0])) + 1) // 2
    options = {
        "embed_dim": dim,
        "depths": depths,
        "num_heads": [table.shape[1] for table in tables],
        "window": window,
        "drop_path": DROP_PATH.get((dim, *depths), 0.0),
        "final_norm": "backbone.norm.weight" in weights,
    }
    return ModelConfig(Part("swin", options), None, _head(weights)), 32 * window


# Swin-T, S and B (Liu et al. 2021b): width and depths.
DROP_PATH: dict[tuple[int, ...], float] = {(96, 2, 2, 6, 2): 0.2, (96, 2, 2, 18, 2): 0.3, (128, 2, 2, 18, 2): 0.5}


def _resnet(weights: Weights, told: Told) -> tuple[ModelConfig, int]:
    """The stride lies in a block's 3x3 convolution, as in torchvision."""
    blocks = tuple(_count(weights, f"backbone.stages.{stage}.") for stage in ("0.4", 1, 2, 3))
    if blocks not in RESNETS:
        raise ConfigError(Problem(f"no ResNet here has {blocks} blocks", (), "there are ResNet-50 and ResNet-101"))
    return ModelConfig(Part("resnet", {"depth": RESNETS[blocks]}), None, _head(weights)), PRETRAINED_AT


RESNETS = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101}  # blocks: depth
FORMATS = {
    "segformer": Format(SEGFORMER, _segformer, ("num_heads",)),
    "gfnet": Format([GFNET], _gfnet),
    "afno": Format([AFNO], _afno, ("residuals",)),
    "swin": Format(SWIN, _swin),
    "resnet": Format(RESNET, _resnet),
}
ALIASES = {"hf_segformer": "segformer"}  # a format's name of its own before layouts were told from the file

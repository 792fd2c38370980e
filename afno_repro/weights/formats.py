"""The formats of published weights: a table of names, theirs -> ours, and the model that tensors of our names show.

Each name stands for everything below it. {s} is a stage from zero, {S} from one, {b} a block, {j} its place behind the
stage's patch embedding, {end} the place behind the last block.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor

from afno_repro.config import ModelConfig, Part

Weights = Mapping[str, Tensor]


class Format(NamedTuple):
    """How published models are spelled, and what model (with its image size) tensors of our names and layouts show."""

    names: Mapping[str, str]
    model: Callable[[Weights], tuple[ModelConfig, int]]


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


def _segformer(weights: Weights) -> tuple[ModelConfig, int]:
    """Heads 1, 2, 5, 8 as in MiT-B0 to B5 (Xie et al. 2021); no tensor tells the image size, 224 in pretraining."""
    stages = [f"backbone.stages.{stage}." for stage in range(4)]
    dims = [len(weights[stage + "0.project.weight"]) for stage in stages]
    depths, ratio = (
        [_count(weights, stage) for stage in stages],
        len(weights[stages[0] + "1.mlp.expand.weight"]) // dims[0],
    )
    reducing = [weights.get(stage + "1.mixer.reduce.weight") for stage in stages]
    backbone = Part("segformer", {"embed_dims": dims, "depths": depths, "mlp_ratio": ratio, "learned_at": 224})
    mixer = Part(
        "efficient_self_attention",
        {"num_heads": [1, 2, 5, 8], "reduction": [1 if r is None else r.shape[-1] for r in reducing]},
    )
    return ModelConfig(backbone, mixer, _head(weights)), 224


def _vit(weights: Weights) -> tuple[ModelConfig, int]:
    """GFNet (Rao et al. 2021) has one residual a block, the authors' AFNO two.

    Their AFNO has threshold 0.01, the identity as bias, all modes and 0.02 randn as initial weights.
    """
    patches, ratio = weights["backbone.embed.project.weight"], len(weights["backbone.blocks.0.mlp.0.weight"])
    mixer, skips = Part("gfn", {}), 1
    if (w1 := weights.get("backbone.blocks.0.mixer.w1")) is not None:
        mixer, skips = (
            Part(
                "afno",
                {"num_blocks": len(w1), "sparsity_threshold": 0.01, "keep": 1.0, "bias": "identity", "init_std": 0.02},
            ),
            2,
        )
    depth, dim, patch = _count(weights, "backbone.blocks."), len(patches), patches.shape[-1]
    backbone = Part(
        "vit", {"patch_size": patch, "embed_dim": dim, "depth": depth, "mlp_ratio": ratio // dim, "skips": skips}
    )
    return ModelConfig(backbone, mixer, _head(weights)), patch * weights["backbone.positions.table"].shape[1]


def _trunk(weights: Weights) -> tuple[ModelConfig, int]:
    """Swin (Liu et al. 2021b) or ResNet (He et al. 2016), by stem width and third-stage blocks; pretrained at 224."""
    stem = weights[
        "backbone.stages.0.0.weight" if "backbone.stages.0.0.weight" in weights else "backbone.stages.0.0.0.weight"
    ]
    return ModelConfig(TRUNKS[len(stem), _count(weights, "backbone.stages.2.")], None, _head(weights)), 224


RESNETS = {(64, 6): Part("resnet", {"depth": 50}), (64, 23): Part("resnet", {"depth": 101})}
SWINS = {  # Swin-T, Swin-S, Swin-B
    (dim, depth): Part(
        "swin",
        {
            "embed_dim": dim,
            "depths": [2, 2, depth, 2],
            "num_heads": [heads * 2**i for i in range(4)],
            "window": 7,
            "drop_path": drop,
        },
    )
    for dim, depth, heads, drop in ((96, 6, 3, 0.2), (96, 18, 3, 0.3), (128, 18, 4, 0.5))
}
TRUNKS = RESNETS | SWINS
# SegFormer: ours, the original's, Hugging Face's in files; ~ is the first row.
SEGFORMER = """
backbone.stages.{s}.{j}        block{S}.{b}                  encoder.block.{s}.{b}
~.norm1                        ~.norm1                       ~.layer_norm_1
~.mixer.q                      ~.attn.q                      ~.attention.self.query
~.mixer.kv                     ~.attn.kv                     ~.attention.self.key
~.mixer.kv                     ~.attn.kv                     ~.attention.self.value
~.mixer.reduce                 ~.attn.sr                     ~.attention.self.sr
~.mixer.norm                   ~.attn.norm                   ~.attention.self.layer_norm
~.mixer.project                ~.attn.proj                   ~.attention.output.dense
~.norm2                        ~.norm2                       ~.layer_norm_2
~.mlp.expand                   ~.mlp.fc1                     ~.mlp.dense1
~.mlp.depthwise                ~.mlp.dwconv.dwconv           ~.mlp.dwconv.dwconv
~.mlp.contract                 ~.mlp.fc2                     ~.mlp.dense2
backbone.stages.{s}.0.project  patch_embed{S}.proj           encoder.patch_embeddings.{s}.proj
backbone.stages.{s}.0.norm     patch_embed{S}.norm           encoder.patch_embeddings.{s}.layer_norm
backbone.stages.{s}.{end}      norm{S}                       encoder.layer_norm.{s}
head.projections.{s}           decode_head.linear_c{S}.proj  decode_head.linear_c.{s}.proj
head.fuse.0                    decode_head.linear_fuse.conv  decode_head.linear_fuse
head.fuse.1                    decode_head.linear_fuse.bn    decode_head.batch_norm
head.classify                  decode_head.linear_pred       decode_head.classifier
head.project                   head                          classifier"""
# Ours, Hugging Face's in memory since version 5.
HF_IN_MEMORY = """
backbone.stages.{s}.{j}        stages.{s}.blocks.{b}
~.norm1                        ~.layernorm_before
~.mixer.q                      ~.attention.q_proj
~.mixer.kv                     ~.attention.k_proj
~.mixer.kv                     ~.attention.v_proj
~.mixer.reduce                 ~.attention.sequence_reduction.sequence_reduction
~.mixer.norm                   ~.attention.sequence_reduction.layer_norm
~.mixer.project                ~.attention.o_proj
~.norm2                        ~.layernorm_after
~.mlp.expand                   ~.mlp.fc1
~.mlp.depthwise                ~.mlp.dwconv.dwconv
~.mlp.contract                 ~.mlp.fc2
backbone.stages.{s}.0.project  stages.{s}.patch_embeddings.proj
backbone.stages.{s}.0.norm     stages.{s}.patch_embeddings.layer_norm
backbone.stages.{s}.{end}      stages.{s}.layer_norm
head.projections.{s}           decode_head.linear_projections.{s}.proj
head.fuse.0                    decode_head.linear_fuse
head.fuse.1                    decode_head.batch_norm
head.classify                  decode_head.classifier
head.project                   classifier"""


def _segformer_names(table: str, column: int) -> dict[str, str]:
    block, *rows = (line.split() for line in table.strip().splitlines())
    return {row[column].replace("~", block[column]): row[0].replace("~", block[0]) for row in rows}


VIT = {
    "patch_embed.proj": "backbone.embed.project",
    "pos_embed": "backbone.positions.table",
    "norm": "backbone.norm",
    "head": "head.project",
} | {
    f"blocks.{{b}}.{old}": f"backbone.blocks.{{b}}.{new}"
    for old, new in {"norm1": "norm1", "norm2": "norm2", "mlp.fc1": "mlp.0", "mlp.fc2": "mlp.2"}.items()
}
RESNET = {"conv1": "0.0", "bn1": "0.1", "layer1": "0.4", "layer2": "1", "layer3": "2", "layer4": "3"}
FORMATS = {
    "segformer": Format(_segformer_names(SEGFORMER, 1), _segformer),
    "hf_segformer": Format(_segformer_names(SEGFORMER, 2) | _segformer_names(HF_IN_MEMORY, 1), _segformer),
    "gfnet": Format(VIT | {"blocks.{b}.filter.complex_weight": "backbone.blocks.{b}.mixer.filter"}, _vit),
    "afno": Format(VIT | {"blocks.{b}.filter": "backbone.blocks.{b}.mixer"}, _vit),
    "swin": Format({f"features.{layer}": f"backbone.stages.{layer // 2}.{layer}" for layer in range(8)}, _trunk),
    "resnet": Format({theirs: f"backbone.stages.{ours}" for theirs, ours in RESNET.items()}, _trunk),
}

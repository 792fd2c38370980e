"""Published weights: foreign state dicts -> our models' names and layouts, written as safetensors.

A format is a table of names, theirs -> ours, each standing for everything below it. Tensors are renamed by it, the model is
inferred from their shapes and built without memory, and every tensor is held to it. {s} is a stage from zero, {S} from one,
{b} a block, {j} its place behind the stage's patch embedding, {end} the place behind the last block.
"""

import argparse
import hashlib
import math
import pickle
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
from torch import Tensor, nn

from afno_repro.config import ModelConfig, Part
from afno_repro.errors import ConfigError, DataError, Problem
from afno_repro.files import write_atomic
from afno_repro.models import build_model
from afno_repro.options import suggest

Weights = Mapping[str, Tensor]


class Format(NamedTuple):
    """How published models are spelled, and what model (with its image size) tensors of our names and layouts show."""

    names: Mapping[str, str]
    model: Callable[[Weights], tuple[ModelConfig, int]]


@dataclass(frozen=True)
class Fit:
    """Weights held to a model: our names that match, those that keep their value, and what was resized from -> to."""

    weights: dict[str, Tensor]
    matched: list[str]
    missing: list[str]
    resized: list[str]


@dataclass(frozen=True)
class Conversion(Fit):
    """Weights that fit `model`, built for `learned_at` pixels a side; what they do not use and the digest are the file's."""

    unexpected: list[str]
    sha256: str
    model: ModelConfig
    learned_at: int


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The named tensors of a .safetensors or PyTorch file. Raises DataError (missing, damaged) or ConfigError (pickled objects: none is executed)."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # a training script's arguments beside its weights
            found = safetensors.torch.load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True, map_location="cpu")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:
        raise ConfigError(f"{path}: refused: holds pickled objects other than tensors and plain containers; ask for safetensors") from error
    except Exception as error:  # a damaged file makes PyTorch's reader fail in every way
        raise DataError(f"{path}: is no whole weights file ({str(error).partition('.')[0]})") from error
    while isinstance(found, dict) and (nest := next((key for key in ("state_dict", "model") if isinstance(found.get(key), dict)), None)):
        found = found[nest]
    items = found.items() if isinstance(found, dict) else ()
    tensors = {str(name).removeprefix("module."): value.detach() for name, value in items if isinstance(value, Tensor)}
    if not tensors:
        raise ConfigError(Problem("holds no state dict", place=str(path)))
    return tensors


def convert(path: Path, format_name: str) -> Conversion:
    """A published file's tensors in our names and layouts. Raises DataError (not readable) or ConfigError (not of the format, no model here)."""
    if format_name not in FORMATS:
        raise ConfigError(Problem(f"there is no format {format_name!r}", (), suggest(format_name, FORMATS, "formats")))
    theirs, form = read_state_dict(path), FORMATS[format_name]
    try:
        names = _renamed(theirs, form.names)
        weights = _in_our_layout(theirs, names)
        config, learned_at = form.model(weights)
        with torch.device("meta"):
            expected = build_model(config, learned_at).state_dict()
        fit = _fit(expected, {name: tensor for name, tensor in weights.items() if name in expected})
    except (LookupError, ArithmeticError, TypeError, RuntimeError) as error:  # a tensor is missing or of a shape that the format has not
        raise ConfigError(f"{path}: is not of the format {format_name} ({error})") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: does not fit the format {format_name}", *error.problems) from None
    unexpected = [name for name in theirs if names.get(name) not in expected]
    return Conversion(**vars(fit), unexpected=unexpected, sha256=hashlib.sha256(path.read_bytes()).hexdigest(), model=config, learned_at=learned_at)


def write_weights(conversion: Conversion, out: Path) -> None:
    """Write converted weights as safetensors, whole or not at all; the metadata names the original's SHA-256. Raises StorageError."""
    write_atomic(out, safetensors.torch.save(conversion.weights, metadata={"source_sha256": conversion.sha256}))


def load_weights(model: nn.Module, weights: Weights) -> Fit:
    """Load weights of our names into a built model, all or nothing.

    Position tables and GFN filters of another grid are resized. Weights without any head leave the model's head as it is:
    to start another task, hand in those that start with `backbone.`. Raises ConfigError with the first five mismatches.
    """
    fit = _fit(model.state_dict(), weights)
    model.load_state_dict(fit.weights, strict=False)
    return fit


def _renamed(theirs: Weights, table: Mapping[str, str]) -> dict[str, str]:
    """Our name of every name that the table knows, whether or not the whole encoder has a prefix."""
    patterns = [(re.sub(r"\\{(\w)\\}", r"(?P<\1>\\d+)", re.escape(entry)), ours) for entry, ours in table.items()]
    hits = [(name, ours, m) for name in theirs for p, ours in patterns if (m := re.fullmatch(rf"(backbone\.|segformer\.)?{p}(?P<below>\..+)?", name))]
    found: dict[str, tuple[str, str, dict[str, int]]] = {}
    blocks: dict[int, set[int]] = defaultdict(set)
    for name, ours, match in hits:
        at = {key: int(value) for key, value in match.groupdict().items() if key != "below"}
        at = {"s": at.get("S", 1) - 1, "j": at.get("b", 0) + 1, **at}
        blocks[at["s"]].update({at["b"]} if "b" in at else {})
        found[name] = ours, match["below"] or "", at
    return {name: ours.format(**at, end=len(blocks[at["s"]]) + 1) + below for name, (ours, below, at) in found.items()}


def _in_our_layout(theirs: Weights, names: Mapping[str, str]) -> dict[str, Tensor]:
    """Copies under our names; tensors that share a name (keys and values) are stacked in the alphabetical order of theirs."""
    parts: dict[str, list[Tensor]] = defaultdict(list)
    for name in sorted(names):
        parts[names[name]].append(theirs[name])
    joined = {name: torch.cat(tensors) if len(tensors) > 1 else tensors[0] for name, tensors in parts.items()}
    return {name: LAYOUTS.get(name.rpartition(".")[2], Tensor.detach)(tensor).clone(memory_format=torch.contiguous_format) for name, tensor in joined.items()}


def _fit(expected: Weights, weights: Weights) -> Fit:
    """The weights on the grids of a model's tensors; only a whole head and batch norm's step counts may be missing."""
    fitting = {name: _on_grid(name, tensor, expected[name].shape) if name in expected else tensor for name, tensor in weights.items()}
    missing = [name for name in expected if name not in weights]
    optional = "head." if not any(name.startswith("head.") for name in weights) else ()
    excused = {name for name in missing if name.startswith(optional) or name.endswith(".num_batches_tracked")}
    shapes, found = ({name: tuple(tensor.shape) for name, tensor in tensors.items()} for tensors in (expected, fitting))
    wrong = [name for name in shapes | found if shapes.get(name) != found.get(name) and name not in excused]
    if wrong:
        first = [Problem(f"expected {shapes.get(name)}, found {found.get(name)}", (name,)) for name in wrong[:5]]
        raise ConfigError(f"weights of another model: {len(wrong)} tensors differ, the first {len(first)} are", *first)
    resized = [f"{name}: {tuple(tensor.shape)} -> {found[name]}" for name, tensor in weights.items() if tensor.shape != found[name]]
    return Fit(fitting, list(fitting), missing, resized)


def _on_grid(name: str, tensor: Tensor, shape: torch.Size) -> Tensor:
    """Position tables (C H W) and GFN filters (H M C 2) on another grid, as Positions and GFN resize them; the rest unchanged."""
    if name == "backbone.positions.table" and tensor.ndim == 3 and tensor.shape[1:] != shape[1:]:
        return nn.functional.interpolate(tensor[None], size=shape[1:], mode="bilinear", align_corners=False)[0]
    if name.endswith(".mixer.filter") and tensor.ndim == 4 and tensor.shape[:2] != shape[:2]:
        return nn.functional.interpolate(tensor.permute(2, 3, 0, 1), size=shape[:2], mode="bilinear", align_corners=True).permute(2, 3, 0, 1).contiguous()
    return tensor


def _count(weights: Weights, prefix: str) -> int:
    return sum(name.startswith(prefix) and name.endswith((".norm1.weight", ".bn1.weight")) for name in weights)


def _head(weights: Weights) -> Part:
    """The head that the weights hold; where there is none SegFormer's for Cityscapes (768 wide, 19 classes), untrained."""
    if "head.project.weight" in weights and "head.classify.weight" not in weights:
        return Part("classification", {"num_classes": len(weights["head.project.weight"])})
    width, classes = (len(weights[name]) if name in weights else size for name, size in {"head.fuse.0.weight": 768, "head.classify.weight": 19}.items())
    return Part("segformer", {"embed_dim": width, "dropout": 0.1, "num_classes": classes})


def _segformer(weights: Weights) -> tuple[ModelConfig, int]:
    """Heads 1, 2, 5, 8 as in all of MiT-B0 to B5 (Xie et al. 2021); no tensor depends on the image size, 224 in pretraining."""
    stages = [f"backbone.stages.{stage}." for stage in range(4)]
    dims = [len(weights[stage + "0.project.weight"]) for stage in stages]
    depths, ratio = [_count(weights, stage) for stage in stages], len(weights[stages[0] + "1.mlp.expand.weight"]) // dims[0]
    reducing = [weights.get(stage + "1.mixer.reduce.weight") for stage in stages]
    backbone = Part("segformer", {"embed_dims": dims, "depths": depths, "mlp_ratio": ratio, "learned_at": 224})
    mixer = Part("efficient_self_attention", {"num_heads": [1, 2, 5, 8], "reduction": [1 if r is None else r.shape[-1] for r in reducing]})
    return ModelConfig(backbone, mixer, _head(weights)), 224


def _vit(weights: Weights) -> tuple[ModelConfig, int]:
    """GFNet has one residual a block (Rao et al. 2021); the authors' AFNO two, threshold 0.01, identity bias, all modes, 0.02 randn."""
    patches, ratio = weights["backbone.embed.project.weight"], len(weights["backbone.blocks.0.mlp.0.weight"])
    mixer, skips = Part("gfn", {}), 1
    if (w1 := weights.get("backbone.blocks.0.mixer.w1")) is not None:
        mixer, skips = Part("afno", {"num_blocks": len(w1), "sparsity_threshold": 0.01, "keep": 1.0, "bias": "identity", "init_std": 0.02}), 2
    depth, dim, patch = _count(weights, "backbone.blocks."), len(patches), patches.shape[-1]
    backbone = Part("vit", {"patch_size": patch, "embed_dim": dim, "depth": depth, "mlp_ratio": ratio // dim, "skips": skips})
    return ModelConfig(backbone, mixer, _head(weights)), patch * weights["backbone.positions.table"].shape[1]


def _trunk(weights: Weights) -> tuple[ModelConfig, int]:
    """Swin (Liu et al. 2021b) or ResNet (He et al. 2016) by the stem's width and the third stage's blocks; pretrained at 224."""
    stem = weights["backbone.stages.0.0.weight" if "backbone.stages.0.0.weight" in weights else "backbone.stages.0.0.0.weight"]
    return ModelConfig(TRUNKS[len(stem), _count(weights, "backbone.stages.2.")], None, _head(weights)), 224


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {  # by the last part of our name
    "table": lambda positions: positions.reshape(2 * [math.isqrt(positions.shape[1])] + [-1]).permute(2, 0, 1),  # 1 N C, row by row -> C H W
    **dict.fromkeys(("w1", "w2"), lambda w: w.movedim(0, -1)),  # 2 K D D -> K D D 2: real and imaginary parts
    **dict.fromkeys(("b1", "b2"), lambda b: b.movedim(0, -1).unsqueeze(-2)),  # 2 K D -> K D 1 2
}
TRUNKS = {(64, 6): Part("resnet", {"depth": 50}), (64, 23): Part("resnet", {"depth": 101})} | {
    size: Part("swin", {"size": name}) for size, name in {(96, 6): "tiny", (96, 18): "small", (128, 18): "base"}.items()
}
# SegFormer: ours, the original's, Hugging Face's in files, Hugging Face's in memory since version 5; ~ is the first row.
SEGFORMER = """
backbone.stages.{s}.{j}         block{S}.{b}                    encoder.block.{s}.{b}                     stages.{s}.blocks.{b}
~.norm1                         ~.norm1                         ~.layer_norm_1                            ~.layernorm_before
~.mixer.q                       ~.attn.q                        ~.attention.self.query                    ~.attention.q_proj
~.mixer.kv                      ~.attn.kv                       ~.attention.self.key                      ~.attention.k_proj
~.mixer.kv                      ~.attn.kv                       ~.attention.self.value                    ~.attention.v_proj
~.mixer.reduce                  ~.attn.sr                       ~.attention.self.sr                       ~.attention.sequence_reduction.sequence_reduction
~.mixer.norm                    ~.attn.norm                     ~.attention.self.layer_norm               ~.attention.sequence_reduction.layer_norm
~.mixer.project                 ~.attn.proj                     ~.attention.output.dense                  ~.attention.o_proj
~.norm2                         ~.norm2                         ~.layer_norm_2                            ~.layernorm_after
~.mlp.expand                    ~.mlp.fc1                       ~.mlp.dense1                              ~.mlp.fc1
~.mlp.depthwise                 ~.mlp.dwconv.dwconv             ~.mlp.dwconv.dwconv                       ~.mlp.dwconv.dwconv
~.mlp.contract                  ~.mlp.fc2                       ~.mlp.dense2                              ~.mlp.fc2
backbone.stages.{s}.0.project   patch_embed{S}.proj             encoder.patch_embeddings.{s}.proj         stages.{s}.patch_embeddings.proj
backbone.stages.{s}.0.norm      patch_embed{S}.norm             encoder.patch_embeddings.{s}.layer_norm   stages.{s}.patch_embeddings.layer_norm
backbone.stages.{s}.{end}       norm{S}                         encoder.layer_norm.{s}                    stages.{s}.layer_norm
head.projections.{s}            decode_head.linear_c{S}.proj    decode_head.linear_c.{s}.proj             decode_head.linear_projections.{s}.proj
head.fuse.0                     decode_head.linear_fuse.conv    decode_head.linear_fuse                   decode_head.linear_fuse
head.fuse.1                     decode_head.linear_fuse.bn      decode_head.batch_norm                    decode_head.batch_norm
head.classify                   decode_head.linear_pred         decode_head.classifier                    decode_head.classifier
head.project                    head                            classifier                                classifier"""


def _segformer_names(column: int) -> dict[str, str]:
    block, *rows = (line.split() for line in SEGFORMER.strip().splitlines())
    return {row[column].replace("~", block[column]): row[0].replace("~", block[0]) for row in rows}


VIT = {"patch_embed.proj": "backbone.embed.project", "pos_embed": "backbone.positions.table", "norm": "backbone.norm", "head": "head.project"} | {
    f"blocks.{{b}}.{old}": f"backbone.blocks.{{b}}.{new}" for old, new in {"norm1": "norm1", "norm2": "norm2", "mlp.fc1": "mlp.0", "mlp.fc2": "mlp.2"}.items()
}
RESNET = {"conv1": "0.0", "bn1": "0.1", "layer1": "0.4", "layer2": "1", "layer3": "2", "layer4": "3"}
FORMATS = {
    "segformer": Format(_segformer_names(1), _segformer),
    "hf_segformer": Format(_segformer_names(2) | _segformer_names(3), _segformer),
    "gfnet": Format(VIT | {"blocks.{b}.filter.complex_weight": "backbone.blocks.{b}.mixer.filter"}, _vit),
    "afno": Format(VIT | {"blocks.{b}.filter": "backbone.blocks.{b}.mixer"}, _vit),
    "swin": Format({f"features.{layer}": f"backbone.stages.{layer // 2}.{layer}" for layer in range(8)}, _trunk),
    "resnet": Format({theirs: f"backbone.stages.{ours}" for theirs, ours in RESNET.items()}, _trunk),
}

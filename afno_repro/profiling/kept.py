"""What a network takes: operations of an image, and the bytes that a training step keeps until it passes back.

Nothing is computed for it. Operations are counted on the `meta` device. What is kept is watched on fake tensors of a
GPU, which have its forms of the mixers and the precision, and no values. For a CPU, and for mixers of one's own, which
may launch kernels, it is watched on `meta`, too: in float32, with AFNO by FFTs. Its matrix products, which a CPU
prefers on small grids, keep up to twice as much of them.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from afno_repro.backbones.layers import Block
from afno_repro.config import ModelConfig
from afno_repro.models import build_model
from afno_repro.precision import autocast, set_precision
from afno_repro.profiling.flops import CountingRule, count

# gflops_full is the same by every rule.
FULL = CountingRule(attention_products=2, conv_bias=True, inner_norm=0, upsampling=0, mixer_fft=0.0)
FEW, MORE = 2, 3  # images that are tried: of a single one some layers keep views, of several copies


@dataclass(frozen=True)
class Bytes:
    """Memory of images: `each` for every one, `fixed` for all together, as weights in half precision are."""

    fixed: int
    each: int

    def of(self, images: int) -> int:
        return self.fixed + images * self.each


@dataclass(frozen=True)
class Network:
    """What a model on `meta` takes on a device: operations of an image's forward pass, and bytes of a training step."""

    model: nn.Module
    image_size: int
    device: str
    precision: str
    params: int
    flops: float
    largest_bytes: int

    @cached_property
    def kept(self) -> tuple[Bytes, Bytes]:
        """What the pass of a training step keeps, and what it keeps where blocks are computed again."""
        sizes = [(images, 3, self.image_size, self.image_size) for images in (FEW, MORE)]
        few, more = (_kept(self.model, size, self.device, self.precision) for size in sizes)
        return _line(few[0], more[0]), _line(few[1], more[1])

    def training_bytes(self, images: int, again: bool = False) -> int:
        """Of a step: four numbers a parameter, and what so many images keep and pass back at once."""
        return 4 * 4 * self.params + self.kept[again].of(images) + images * self.largest_bytes


def network(config: ModelConfig, image_size: int, device: str = "meta", precision: str = "float32") -> Network:
    """Count a model on a device and in a precision that specs name, for images of image_size pixels a side."""
    if config.mixer is not None and ":" in config.mixer.name:
        device = "meta"
    with torch.device("meta"):
        model = build_model(config, image_size)
    counted = count(model, image_size, FULL)
    flops = 1e9 * counted.gflops_full
    return Network(model, image_size, device, precision, counted.params, flops, counted.largest_bytes)


def _line(few: int, more: int) -> Bytes:
    """Through the bytes of the two numbers of images that were tried."""
    each = (more - few) // (MORE - FEW)
    return Bytes(few - FEW * each, each)


def _kept(model: nn.Module, images: tuple[int, ...], device: str, precision: str) -> tuple[int, int]:
    """Bytes that a forward pass of a model on `meta` keeps on a device, in all and with blocks computed again."""
    where = torch.device(device)
    fake: AbstractContextManager[Any] = nullcontext()
    half: AbstractContextManager[Any] = nullcontext()
    if where.type in ("cpu", "meta"):
        where = torch.device("meta")
    else:
        set_precision(precision, where)
        fake, half = FakeTensorMode(), autocast(where, precision)
    with fake:
        weights = {
            name: torch.empty_strided(
                own.shape, own.stride(), dtype=own.dtype, device=where, requires_grad=own.requires_grad
            )
            for name, own in (*model.named_parameters(), *model.named_buffers())
        }
        kept = _Kept(model, list(weights.values()))
        with torch.autograd.graph.saved_tensors_hooks(kept.keep, lambda tensor: tensor), kept, half:
            torch.func.functional_call(model.train(), weights, torch.empty(images, device=where))
    return kept.outside + sum(kept.inside), kept.outside + max(kept.inside, default=0)


class _Kept(TorchFunctionMode):
    """Adds up what a forward pass keeps for autograd, less weights; each memory once. Fused attention keeps no scores.

    `inside` are the bytes of each mixer block, `outside` those of the rest and the blocks' inputs.
    """

    def __init__(self, model: nn.Module, weights: list[Tensor]):
        super().__init__()
        self.seen: dict[int, Any] = {own.untyped_storage()._cdata: own for own in weights}
        self.outside, self.inside, self.in_block = 0, list[int](), False
        blocks = [module for module in model.modules() if isinstance(module, Block)]
        self.hooks = [block.register_forward_pre_hook(self.enter) for block in blocks]
        self.hooks += [block.register_forward_hook(self.leave) for block in blocks]

    def __exit__(self, *error: Any) -> None:
        for hook in self.hooks:
            hook.remove()
        super().__exit__(*error)

    def enter(self, block: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.keep(inputs[0])
        self.inside.append(0)
        self.in_block = True

    def leave(self, *_: Any) -> None:
        self.in_block = False

    def keep(self, tensor: Tensor) -> Tensor:
        memory = tensor.untyped_storage()
        if memory._cdata not in self.seen:
            self.seen[memory._cdata] = memory  # held, so that no other takes its place
            if self.in_block:
                self.inside[-1] += memory.nbytes()
            else:
                self.outside += memory.nbytes()
        return tensor

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is not scaled_dot_product_attention:
            return function(*args, **(kwargs or {}))
        with torch.no_grad():
            result = function(*args, **(kwargs or {}))
        for tensor in (*args[:3], result):
            self.keep(tensor)
        return result.requires_grad_()

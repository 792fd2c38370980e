"""One operator-level counter, watched on the meta device; mixers carry no formulas.

`gflops` are multiply-accumulates in 1e9, the unit of the paper's tables, by the counting rule that a spec names.
`gflops_full` are floating-point operations in 1e9 by one rule for everything:

    2 a multiply-accumulate (a complex product is four real ones), 5 n log2 n a complex FFT of n points, half of it a
    real one, and inside mixers 6 a complex elementwise product, 2 a complex sum, 1 a ReLU, 5 a soft shrinkage;
    no softmax, norm, GELU or upsampling.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from afno_repro.backbones.layers import MLP, MixFFN, blocks_in
from afno_repro.errors import require

aten = torch.ops.aten
CHANNEL_MIXING = (MLP, MixFFN)


@dataclass(frozen=True)
class CountingRule:
    """How a table of the paper counts multiply-accumulates."""

    attention_products: int  # of the two products of softmax attention, how many count
    conv_bias: bool  # whether a convolution counts in a mixer that transforms
    inner_norm: int  # operations an element of a layer norm inside a mixer
    upsampling: int  # operations an element of a bilinear resizing outside mixers
    mixer_fft: float  # share of the FFTs' floating-point operations that counts for the mixers, not for the model

    def __post_init__(self) -> None:
        require(
            (
                self.attention_products in (0, 1, 2),
                "attention_products",
                f"count: must be 0, 1 or 2, is {self.attention_products}",
            ),
            (self.inner_norm >= 0, "inner_norm", f"count: must be at least 0, is {self.inner_norm}"),
            (self.upsampling >= 0, "upsampling", f"count: must be at least 0, is {self.upsampling}"),
            (self.mixer_fft >= 0, "mixer_fft", f"count: must be at least 0, is {self.mixer_fft}"),
        )


@dataclass(frozen=True)
class Count:
    """Cost of one image's forward pass; the mixer fields are the token mixers' part, mlp_gflops the channel MLPs'."""

    params: int
    mixer_params: int
    gflops: float
    mixer_gflops: float
    mlp_gflops: float
    gflops_full: float
    mixer_gflops_full: float
    largest_bytes: int  # operands and result of the largest operator: memory that a forward pass needs at the least
    product_bytes: int  # results of all products: memory that a backward pass needs at the least

    @property
    def mlp_share(self) -> float:
        """The part of gflops that the backbone's channel MLPs need."""
        return self.mlp_gflops / self.gflops


def count(model: nn.Module, image_size: int | tuple[int, int], rule: CountingRule) -> Count:
    """Count a model on the meta device for one image of image_size pixels a side, or of (height, width) pixels."""
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    counter = _Operators(rule)
    mixers = [block.mixer for block in blocks_in(model)]
    inside = {module for mixer in mixers for module in mixer.modules()}
    watched = [*mixers, *(m for m in model.modules() if isinstance(m, CHANNEL_MIXING) and m not in inside)]
    hooks = [module.register_forward_pre_hook(counter.enter) for module in watched]
    hooks += [module.register_forward_hook(counter.leave) for module in watched]
    with torch.no_grad(), _AttentionProducts(counter), counter:
        model(torch.empty(1, 3, height, width, device="meta"))
    for hook in hooks:
        hook.remove()
    return Count(
        params=sum(p.numel() for p in model.parameters()),
        mixer_params=sum(p.numel() for mixer in mixers for p in mixer.parameters()),
        gflops=counter.macs["model"] / 1e9,
        mixer_gflops=counter.macs["mixer"] / 1e9,
        mlp_gflops=counter.macs["mlp"] / 1e9,
        gflops_full=counter.flops["model"] / 1e9,
        mixer_gflops_full=counter.flops["mixer"] / 1e9,
        largest_bytes=counter.largest_bytes,
        product_bytes=counter.product_bytes,
    )


class _Operators(TorchDispatchMode):
    """Adds up every operator that runs, for the whole model and while a mixer or a channel MLP runs."""

    def __init__(self, rule: CountingRule):
        super().__init__()
        self.rule = rule
        self.macs = {"model": 0.0, "mixer": 0.0, "mlp": 0.0}
        self.flops = {"model": 0.0, "mixer": 0.0, "mlp": 0.0}
        self.in_mixer = self.in_mlp = False
        self.convolved, self.transforms = 0.0, False  # in the mixer that is running
        self.attention_products: int | None = None  # seen so far in the attention that is running
        self.largest_bytes = self.product_bytes = 0

    def enter(self, module: nn.Module, *_: Any) -> None:
        self.in_mlp = isinstance(module, CHANNEL_MIXING)
        self.in_mixer = not self.in_mlp
        self.convolved, self.transforms = 0.0, False

    def leave(self, *_: Any) -> None:
        if self.rule.conv_bias or not self.transforms:
            self.add(self.convolved, 0)
        self.in_mixer = self.in_mlp = False

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operator(*args, **(kwargs or {}))
        self.weigh(operator.overloadpacket, args, result)
        kind, first = operator.overloadpacket, result[0] if isinstance(result, tuple) else result
        if kind in PRODUCTS:
            macs = PRODUCTS[kind](args, result) * (4 if result.is_complex() else 1)
            held = self.in_mixer and kind is aten.convolution  # until it is known whether this mixer transforms
            self.convolved += macs * held
            self.add(macs if self.counts() and not held else 0, 2 * macs)
        elif kind in TRANSFORMS:
            flops, self.transforms = _fft_flops(args, result), True
            self.add(0, flops)
            self.macs["mixer"] += self.rule.mixer_fft * flops
        elif kind is aten.native_layer_norm and self.in_mixer:
            self.add(self.rule.inner_norm * first.numel(), 0)
        elif kind is aten.upsample_bilinear2d and not self.in_mixer:
            self.add(self.rule.upsampling * first.numel(), 0)
        elif self.in_mixer and isinstance(first, Tensor):
            self.add(0, ELEMENTWISE.get((kind, first.is_complex()), 0) * first.numel())
        return result

    def weigh(self, operator: Any, args: Any, result: Any) -> None:
        """Note the memory of an operator; attention is fused on real devices and never holds all its scores."""
        if self.attention_products is None:
            self.largest_bytes = max(self.largest_bytes, operator_bytes(args, result))
            self.product_bytes += result.nbytes if operator in PRODUCTS else 0

    def counts(self) -> bool:
        """Whether the rule counts this product as multiply-accumulates."""
        if self.attention_products is None:
            return True
        self.attention_products += 1
        return self.attention_products <= self.rule.attention_products

    def add(self, macs: float, flops: float) -> None:
        for part, running in (("model", True), ("mixer", self.in_mixer), ("mlp", self.in_mlp)):
            self.macs[part] += macs * running
            self.flops[part] += flops * running


class _AttentionProducts(TorchFunctionMode):
    """Tells the counter which products belong to softmax attention, whatever operators it becomes."""

    def __init__(self, counter: _Operators):
        super().__init__()
        self.counter = counter

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is not scaled_dot_product_attention:
            return function(*args, **(kwargs or {}))
        self.counter.attention_products = 0
        result = function(*args, **(kwargs or {}))
        self.counter.attention_products = None
        return result


def operator_bytes(args: Any, result: Any) -> int:
    """Memory of an operator's operands and its result; a view has none."""
    if not isinstance(result, Tensor) or result._is_view():
        return 0
    operands = args[0] if args and isinstance(args[0], list | tuple) else args
    return sum(tensor.nbytes for tensor in (*operands, result) if isinstance(tensor, Tensor))


def _fft_flops(args: Any, result: Tensor) -> float:
    """5 n log2 n a complex transform of n points, half of it a real one, for the transformed axes together."""
    spatial = args[0] if args[0].numel() >= result.numel() else result  # the real side of a real transform
    points = math.prod(spatial.shape[axis] for axis in args[1])
    real = not (args[0].is_complex() and result.is_complex())
    return (2.5 if real else 5.0) * spatial.numel() * math.log2(points)


PRODUCTS: dict[Any, Callable[[Any, Tensor], int]] = {
    aten.mm: lambda args, result: result.numel() * args[0].shape[-1],
    aten.bmm: lambda args, result: result.numel() * args[0].shape[-1],
    aten.addmm: lambda args, result: result.numel() * args[1].shape[-1],
    aten.baddbmm: lambda args, result: result.numel() * args[1].shape[-1],
    aten.convolution: lambda args, result: result.numel() * math.prod(args[1].shape[1:]),
}
TRANSFORMS = (aten._fft_r2c, aten._fft_c2r, aten._fft_c2c)
ELEMENTWISE: dict[tuple[Any, bool], int] = {  # (operator, complex result): operations an element
    (aten.mul, True): 6,
    (aten.mul_, True): 6,
    (aten.add, True): 2,
    (aten.add_, True): 2,
    (aten.relu, False): 1,
    (aten.relu_, False): 1,
    (aten.softshrink, False): 5,
}

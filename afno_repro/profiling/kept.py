"""What a network takes: operations of an image, and the bytes of a training step with so many images.

Nothing is computed for it. Operations are counted on the `meta` device. What a step keeps is watched on fake tensors
of a GPU, which have its forms of the mixers and the precision, and no values. For a CPU, and for mixers of one's own,
which may launch kernels, it is watched on `meta`, too: in float32, with AFNO by FFTs. Its matrix products, which a CPU
prefers on small grids, keep up to twice as much of them.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from afno_repro.backbones.layers import blocks_in
from afno_repro.config import RunConfig
from afno_repro.models import build_model
from afno_repro.precision import autocast, set_precision
from afno_repro.profiling.flops import CountingRule, count, operator_bytes
from afno_repro.tasks import TASKS, Batch

# gflops_full is the same by every rule.
FULL = CountingRule(attention_products=2, conv_bias=True, inner_norm=0, upsampling=0, mixer_fft=0.0)


@dataclass(frozen=True)
class Network:
    """The network of a run, on `meta`: its operations a forward pass of an image, and its largest operator's bytes."""

    config: RunConfig
    model: nn.Module
    params: int
    flops: float
    largest_bytes: int
    steps: "dict[tuple[int, str], Step]" = field(default_factory=dict)  # watched so far, by images and device

    @property
    def has_blocks(self) -> bool:
        """Which can be computed again."""
        return bool(blocks_in(self.model))

    def training_bytes(self, images: int, device: str, again: bool = False) -> int:
        """Of a step with so many images, where blocks are computed again or not.

        Four numbers a parameter, what the loss keeps, and its largest operator, whose gradients come at once.
        """
        step = self.step(images, device)
        return 4 * 4 * self.params + step.kept_bytes(again) + step.operators.largest_bytes

    def step(self, images: int, device: str) -> "Step":
        """The loss of a training step with so many images as it is on a device, watched once."""
        if (images, device) not in self.steps:
            self.steps[images, device] = _watched(self.config, self.model, images, device)
        return self.steps[images, device]


def network(config: RunConfig) -> Network:
    """Count the network of a run."""
    assert config.model is not None
    with torch.device("meta"):
        model = build_model(config.model, config.data.image_size)
    counted = count(model, config.data.image_size, FULL)
    return Network(config, model, counted.params, 1e9 * counted.gflops_full, counted.largest_bytes)


def precision_of(config: RunConfig) -> str:
    """In which a run computes: its recipe's, float32 where nothing is trained."""
    return config.train.precision if config.train else "float32"


def _watched(config: RunConfig, model: nn.Module, images: int, device: str) -> "Step":
    assert config.model is not None
    where, precision = torch.device(device), precision_of(config)
    own_mixer = config.model.mixer is not None and ":" in config.model.mixer.name
    fake: AbstractContextManager[Any] = nullcontext()
    half: AbstractContextManager[Any] = nullcontext()
    if own_mixer or where.type == "cpu":
        where = torch.device("meta")
    else:
        set_precision(precision, where)
        fake, half = FakeTensorMode(), autocast(where, precision)
    task = TASKS[config.task.name](config.data.image_size, **config.task.options)
    with fake:
        weights = {
            name: torch.empty_strided(
                own.shape, own.stride(), dtype=own.dtype, device=where, requires_grad=own.requires_grad
            )
            for name, own in (*model.named_parameters(), *model.named_buffers())
        }
        forward: Any = partial(torch.func.functional_call, model.train(), weights)
        step = Step(blocks_in(model), list(weights.values()))
        keeping = torch.autograd.graph.saved_tensors_hooks(step.keep, lambda tensor: tensor)
        with keeping, step, step.operators, half:
            task.loss(forward, _batch(config, images, where))
    step.seen.clear()
    return step


def _batch(config: RunConfig, images: int, device: torch.device) -> Batch:
    """Images of a task with what they are trained by: hidden pixels, a class, or every pixel's."""
    pixels = (images, config.data.image_size, config.data.image_size)
    shape, kind = {
        "inpainting": (pixels, torch.bool),
        "classification": ((images,), torch.int64),
        "segmentation": (pixels, torch.int64),
    }[config.task.name]
    return torch.empty(images, 3, *pixels[1:], device=device), torch.empty(shape, dtype=kind, device=device)


class Step(TorchFunctionMode):
    """Inside, adds up what is kept for autograd, less weights; each memory once. Fused attention keeps no scores.

    `inside` are the bytes of each part, such as a mixer block, `outside` those of the rest and the parts' inputs.
    """

    def __init__(self, parts: Sequence[nn.Module], weights: list[Tensor]):
        super().__init__()
        self.seen: dict[int, Any] = {own.untyped_storage()._cdata: own for own in weights}
        self.outside, self.inside, self.in_part = 0, list[int](), False
        self.operators = _Operators()
        self.hooks = [part.register_forward_pre_hook(self.enter) for part in parts]
        self.hooks += [part.register_forward_hook(self.leave) for part in parts]

    def __exit__(self, *error: Any) -> None:
        for hook in self.hooks:
            hook.remove()
        super().__exit__(*error)

    def kept_bytes(self, again: bool) -> int:
        """In all, or where one part at a time is computed again."""
        return self.outside + (max(self.inside, default=0) if again else sum(self.inside))

    def enter(self, part: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.keep(inputs[0])
        self.inside.append(0)
        self.in_part = True

    def leave(self, *_: Any) -> None:
        self.in_part = False

    def keep(self, tensor: Tensor) -> Tensor:
        memory = tensor.untyped_storage()
        if memory._cdata not in self.seen:
            self.seen[memory._cdata] = memory  # held, so that no other takes its place
            if self.in_part:
                self.inside[-1] += memory.nbytes()
            else:
                self.outside += memory.nbytes()
        return tensor

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is not scaled_dot_product_attention:
            return function(*args, **(kwargs or {}))
        self.operators.fused = True
        with torch.no_grad():
            result = function(*args, **(kwargs or {}))
        self.operators.fused = False
        for tensor in (*args[:3], result):
            self.keep(tensor)
        return result.requires_grad_()


class _Operators(TorchDispatchMode):
    """Knows the largest operator's bytes, but for what a fused one is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.largest_bytes, self.fused = 0, False

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operator(*args, **(kwargs or {}))
        if not self.fused:
            self.largest_bytes = max(self.largest_bytes, operator_bytes(args, result))
        return result

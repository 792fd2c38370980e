"""How the blocks of a network are computed: again in the backward pass, or through a compiler."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from afno_repro.backbones.layers import blocks_in

GRAPHS = 64  # of a block: its shapes, in training and evaluation, at some sizes of images


def recompute_blocks(model: nn.Module) -> None:
    """Keep no activations inside mixer blocks: the backward pass computes them again, for less memory."""
    for block in blocks_in(model):
        block.forward = _again(block.forward)  # type: ignore[method-assign, assignment]


def _again(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The same, computed again; a function, since the compiler does not look into a partial of `checkpoint`."""

    def again(x: Tensor) -> Tensor:
        y: Tensor = checkpoint(forward, x, use_reentrant=False)
        return y

    return again


def compile_backbone(model: nn.Module, backend: str = "inductor") -> None:
    """Run each block through torch.compile, or the whole backbone where it has none; blocks of a shape share a graph.

    With sizes left open, PyTorch's compiler fails on a CPU at the queries of attention beside convolutions.
    What was compiled for networks before is forgotten: after GRAPHS of a function PyTorch compiles no more.
    """
    torch.compiler.reset()
    torch._dynamo.config.recompile_limit = GRAPHS
    backbone = model.get_submodule("backbone")
    blocks: list[nn.Module] = [*blocks_in(backbone)]
    for module in blocks or [backbone]:
        module.compile(dynamic=False, backend=backend)

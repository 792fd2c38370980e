"""Whether mixers give the same on a finer grid, as operators on functions would (Section 3.2).

Shapes: B batch, H W token grid, C channels.
"""

from math import prod, sqrt

import torch
from torch import Tensor, nn

from afno_repro.backbones.layers import blocks_in
from afno_repro.errors import ConfigError, require
from afno_repro.mixers.spectral import Grid, Modes, channels_first, channels_last, irfft2, rfft2
from afno_repro.visualize.clustering import outputs, show
from afno_repro.visualize.pictures import Pictures, means


class Resolution:
    """How far the output of a network's mixers moves where their tokens are sampled `factor` times as densely.

    The tokens are those that each mixer has for an image, continued by their Fourier series. Metric: `change`, the norm
    of the difference on the tokens that both grids have, over that of the output; the mean of all layers.
    """

    def __init__(self, image_size: int, factor: int):
        require((factor >= 2, "factor", f"resolution: must be at least 2, is {factor}"))
        self.factor = factor

    def check(self, model: nn.Module) -> None:
        """Raise ConfigError if the network has no mixers."""
        if not blocks_in(model):
            raise ConfigError("resolution: the network has no token mixers")

    def compute(self, model: nn.Module, images: list[Tensor], labels: list[Tensor | None]) -> Pictures:
        """The change for each of some uint8 images (3, height, width); there is no picture of it."""
        blocks, changes = blocks_in(model), []
        for image in images:
            with outputs([block.norm1 for block in blocks]) as tokens:
                show(model, image)
            pairs = zip(blocks, tokens, strict=True)
            changes.append(sum(change(block.mixer, x, self.factor) for block, x in pairs) / len(blocks))
        repeats = {"change": changes}
        return Pictures(means(repeats), repeats, {})


@torch.inference_mode()
def change(mixer: nn.Module, x: Tensor, factor: int) -> float:
    """|y' - y| / |y|, y being what a mixer makes of tokens B H W C, y' of as many times as many at the same places."""
    grid = (x.shape[1], x.shape[2])
    y = mixer(resampled(x, grid))
    finer = mixer(resampled(x, (factor * grid[0], factor * grid[1])))[:, ::factor, ::factor]
    return float((finer - y).norm() / y.norm())


def resampled(x: Tensor, grid: Grid) -> Tensor:
    """The Fourier series of tokens B H W C on another grid, as fine or finer: B H' W' C.

    It is without the modes at the limit of an even grid, which do not tell how they go on between its tokens.
    """
    h, w = x.shape[1:3]
    modes = Modes((h + 1) // 2, (h - 1) // 2, (w + 1) // 2)
    z = rfft2(channels_first(x), modes)
    return channels_last(irfft2(z, modes, grid)) * sqrt(prod(grid) / (h * w))

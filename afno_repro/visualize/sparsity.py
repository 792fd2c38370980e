"""What soft-thresholding leaves of AFNO's spectra, layer by layer (A.1, Figure 6).

Shapes: H W token grid, M = W // 2 + 1 modes along W, N = H M, C channels, L layers.
"""

from itertools import pairwise

import numpy as np
from torch import Tensor, nn

from afno_repro.errors import ConfigError, require
from afno_repro.mixers.afno import AFNO
from afno_repro.mixers.spectral import Grid
from afno_repro.visualize.clustering import outputs, show
from afno_repro.visualize.pictures import Array, Pictures, full_spectrum, means, radius

HALF = 0.5  # of the largest radius: what divides low from high frequencies


class Spectra:
    """Magnitudes after soft-thresholding and the fraction of values set to zero, in some AFNO layers, counted from 1.

    Real and imaginary parts count separately, as the shrinkage takes them. Fractions are those of the whole spectrum,
    in which a mode of the half spectrum that stands for two counts twice. Metrics for each layer, and without ending
    for their mean: `zeroed`, `zeroed_low` and `zeroed_high` (modes below and above half of the largest radius),
    `zeroed_contrast` (high less low).
    """

    def __init__(self, image_size: int, layers: list[int], bins: int):
        ascending = all(a < b for a, b in pairwise(layers))
        require(
            (
                bool(layers) and ascending and layers[0] >= 1,
                "layers",
                f"spectra: must be ascending numbers of layers from 1, is {layers}",
            ),
            (bins >= 2, "bins", f"spectra: must be at least 2, is {bins}"),
        )
        self.image_size, self.layers, self.bins = image_size, layers, bins

    def check(self, model: nn.Module) -> None:
        """Raise ConfigError if the network, maybe on the meta device, has too few AFNO layers or drops modes."""
        mixers = [module for module in model.modules() if isinstance(module, AFNO)]
        have = f"spectra: the network has {len(mixers)} AFNO layers, is {self.layers}"
        require((self.layers[-1] <= len(mixers), "layers", have))
        if any(mixer.keep < 1 for mixer in mixers):
            raise ConfigError(
                "spectra: the network drops modes before soft-thresholding (keep below 1)\n"
                "  only keep: 1.0 can be shown"
            )

    def compute(self, model: nn.Module, images: list[Tensor], labels: list[Tensor | None]) -> Pictures:
        """Spectra of uint8 images (3, height, width) of one size, averaged over channels and images.

        Arrays, of half spectra: `magnitude` and `zeroed`, float32 (L, H, M); `grid` (H, W) and `layers` (L). Arrays of
        whole ones: `zeroed_radius_L`, the fraction in each bin of the radius (nan: no mode has it), and `radius`, the
        bins' limits in cycles a token.
        """
        self.check(model)
        mixers = [module for module in model.modules() if isinstance(module, AFNO)]
        magnitudes, masks, grid = [], [], (0, 0)
        for image in images:
            magnitude, zeroed, grid = spectra(model, [mixers[layer - 1] for layer in self.layers], image)
            magnitudes.append(magnitude)
            masks.append(zeroed)
        repeats = self.fractions(np.stack(masks), grid)
        zeroed = np.mean(masks, axis=0)
        arrays = {
            "magnitude": np.mean(magnitudes, axis=0),
            "zeroed": zeroed,
            "grid": np.array(grid),
            "layers": np.array(self.layers),
        }
        return Pictures(means(repeats), repeats, arrays | self.by_radius(zeroed, grid))

    def fractions(self, zeroed: Array, grid: Grid) -> dict[str, list[float]]:
        """Every metric's values, one an image, from the masks of images x L x H x M."""
        full, distance = full_spectrum(zeroed, grid[1]), radius(grid)
        low = distance <= HALF * distance.max()
        of_layers = {
            "zeroed": full.mean((-2, -1)),
            "zeroed_low": full[..., low].mean(-1),
            "zeroed_high": full[..., ~low].mean(-1),
        }
        of_layers["zeroed_contrast"] = of_layers["zeroed_high"] - of_layers["zeroed_low"]
        each = {
            f"{key}_{layer}": values[:, i].tolist()
            for key, values in of_layers.items()
            for i, layer in enumerate(self.layers)
        }
        return each | {key: values.mean(1).tolist() for key, values in of_layers.items()}

    def by_radius(self, zeroed: Array, grid: Grid) -> dict[str, Array]:
        """The fraction of zeros by frequency radius, from masks of L x H x M."""
        full, distance = full_spectrum(zeroed, grid[1]), radius(grid)
        limits = np.linspace(0, distance.max(), self.bins + 1)
        number = np.minimum(
            np.digitize(distance, limits) - 1, self.bins - 1
        ).ravel()  # the largest radius belongs to the last bin
        modes = np.bincount(number, minlength=self.bins)
        with np.errstate(invalid="ignore"):
            lines = [(np.bincount(number, each.ravel(), self.bins) / modes).astype(np.float32) for each in full]
        return {
            "radius": limits,
            **{f"zeroed_radius_{layer}": line for layer, line in zip(self.layers, lines, strict=True)},
        }


def spectra(model: nn.Module, mixers: list[AFNO], image: Tensor) -> tuple[Array, Array, Grid]:
    """Means over channels of the magnitude after shrinkage and of what it sets to zero, and the grid (H, W).

    Both means are float32 (L, H, M).
    """
    with outputs([*(mixer.shrink for mixer in mixers), mixers[0]]) as seen:
        show(model, image)
    grid = (seen[1].shape[1], seen[1].shape[2])  # a mixer returns after its shrinkage: B H W C
    shrunk = [z[0].flatten(0, 1).float().cpu().numpy() for z in (seen[0], *seen[2:])]  # B K D N 2 -> C N 2
    half = (len(mixers), grid[0], grid[1] // 2 + 1)
    magnitude = np.stack([np.hypot(z[..., 0], z[..., 1]).mean(0) for z in shrunk]).reshape(half)
    zeroed = np.stack([(z == 0).mean((0, 2), dtype=np.float32) for z in shrunk]).reshape(half)
    return magnitude, zeroed, grid

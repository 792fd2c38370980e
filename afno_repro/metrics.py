"""How good a prediction is. Each metric is updated batch by batch and computes means over images.

Images are (B, 3, height, width) in [0, 1]; a mask (B, height, width) is true on hidden pixels.
"""

import math

import torch
from torch import Tensor

SIGMA, RADIUS = 1.5, 5  # Wang et al. 2004: a Gaussian window of 11 taps
C1, C2 = 0.01**2, 0.03**2  # for a data range of 1


class PSNR:
    """Peak signal-to-noise ratio in dB per image, then the mean: over all pixels and over the hidden ones."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {"psnr": [], "psnr_masked": []}

    def update(self, prediction: Tensor, target: Tensor, mask: Tensor) -> None:
        error = (prediction.double() - target.double()).square()
        hidden = mask[:, None].expand_as(error)
        whole = error.flatten(1).mean(1)
        masked = (error * hidden).flatten(1).sum(1) / hidden.flatten(1).sum(1)
        for key, mse in (("psnr", whole), ("psnr_masked", masked)):
            self.values[key] += (-10 * mse.log10()).tolist()

    def compute(self) -> dict[str, float]:
        return {key: math.fsum(values) / len(values) for key, values in self.values.items()}


class SSIM:
    """Structural similarity per image, then the mean (Wang et al. 2004), with population covariances.

    `ssim` averages the map where its window lies inside the image, as scikit-image does; `ssim_masked` averages it
    over the hidden pixels, mirroring the image at its border.
    """

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {"ssim": [], "ssim_masked": []}

    def update(self, prediction: Tensor, target: Tensor, mask: Tensor) -> None:
        similarity = ssim_map(prediction.double(), target.double())
        inside = similarity[:, :, RADIUS:-RADIUS, RADIUS:-RADIUS]
        hidden = mask[:, None].expand_as(similarity)
        self.values["ssim"] += inside.flatten(1).mean(1).tolist()
        self.values["ssim_masked"] += ((similarity * hidden).flatten(1).sum(1) / hidden.flatten(1).sum(1)).tolist()

    def compute(self) -> dict[str, float]:
        return {key: math.fsum(values) / len(values) for key, values in self.values.items()}


def ssim_map(x: Tensor, y: Tensor) -> Tensor:
    """SSIM at every pixel and channel: (B, C, height, width), the images mirrored at their borders."""
    mx, my = blur(x), blur(y)
    vx, vy, vxy = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    return ((2 * mx * my + C1) * (2 * vxy + C2)) / ((mx * mx + my * my + C1) * (vx + vy + C2))


def blur(x: Tensor) -> Tensor:
    """Gaussian window along both axes as shifted sums."""
    taps = torch.arange(-RADIUS, RADIUS + 1, dtype=x.dtype, device=x.device)
    weights = torch.exp(-taps.square() / (2 * SIGMA**2))
    shares: list[float] = (weights / weights.sum()).tolist()
    for axis in (-2, -1):
        size = x.shape[axis]
        padded = x.index_select(axis, mirrored(size).to(x.device))
        x = sum((w * padded.narrow(axis, i, size) for i, w in enumerate(shares)), start=torch.zeros_like(x))
    return x


def mirrored(size: int) -> Tensor:
    """Indices of a line of `size` pixels mirrored by RADIUS at both ends, the border pixel repeated."""
    index = torch.arange(-RADIUS, size + RADIUS) % (2 * size)
    return torch.minimum(index, 2 * size - 1 - index)

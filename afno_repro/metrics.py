"""How good a prediction is.

Each metric is updated batch by batch, merged with what another process has seen, and computed.
Images are (B, 3, height, width) in [0, 1]; a mask (B, height, width) is true on hidden pixels.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from afno_repro.errors import DataError

SIGMA, RADIUS = 1.5, 5  # Wang et al. 2004: a Gaussian window of 11 taps
HIGHEST = 100.0  # dB: an error of a 390th of a grey level of 256
C1, C2 = 0.01**2, 0.03**2  # for a data range of 1


class Metric(Protocol):
    """One metric, under the names that it computes; higher is better.

    `update` takes what the task's `metrics` gives; `seen` is plain data that another process can `merge`.
    """

    @property
    def keys(self) -> tuple[str, ...]: ...

    @property
    def update(self) -> Callable[..., None]: ...

    def seen(self) -> Any: ...

    def merge(self, seen: Any) -> None: ...

    def compute(self) -> dict[str, float]: ...


class Metrics:
    """The metrics of a task, updated together; `scored` makes of a model and a batch what each of them takes."""

    def __init__(self, parts: Sequence[Metric], scored: Callable[..., tuple[Tensor, ...]]):
        self.parts, self.scored = parts, scored

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(key for part in self.parts for key in part.keys)

    def update(self, model: nn.Module, batch: tuple[Tensor, ...]) -> None:
        """Add a batch that `model` predicts."""
        self.add(*self.scored(model, batch))

    def add(self, *scored: Tensor) -> None:
        """Add a batch that was predicted."""
        for part in self.parts:
            part.update(*scored)

    def seen(self) -> list[Any]:
        """What they have seen, as plain data."""
        return [part.seen() for part in self.parts]

    def merge(self, seen: list[Any]) -> None:
        """Add what another process has seen."""
        for part, theirs in zip(self.parts, seen, strict=True):
            part.merge(theirs)

    def compute(self) -> dict[str, float]:
        return {key: value for part in self.parts for key, value in part.compute().items()}


class PerImage:
    """Values per image, and their means."""

    def __init__(self, *keys: str) -> None:
        self.values: dict[str, list[float]] = {key: [] for key in keys}

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self.values)

    def seen(self) -> dict[str, list[float]]:
        """What it has seen, as plain data."""
        return self.values

    def merge(self, seen: dict[str, list[float]]) -> None:
        """Add what another process has seen; the order does not change a mean."""
        for key, values in seen.items():
            self.values[key] += values

    def compute(self) -> dict[str, float]:
        return {key: math.fsum(values) / len(values) for key, values in self.values.items()}


class PSNR(PerImage):
    """Peak signal-to-noise ratio in dB per image, then the mean: over all pixels and over the hidden ones.

    An image counts at most HIGHEST dB: of equal images the ratio is infinite, and one of them would be the mean.
    """

    def __init__(self) -> None:
        super().__init__("psnr", "psnr_masked")

    def update(self, prediction: Tensor, target: Tensor, mask: Tensor) -> None:
        error = (prediction.double() - target.double()).square()
        hidden = mask[:, None].expand_as(error)
        whole = error.flatten(1).mean(1)
        masked = (error * hidden).flatten(1).sum(1) / hidden.flatten(1).sum(1)
        for key, mse in (("psnr", whole), ("psnr_masked", masked)):
            self.values[key] += (-10 * mse.log10()).clamp(max=HIGHEST).tolist()


class SSIM(PerImage):
    """Structural similarity per image, then the mean (Wang et al. 2004), with population covariances.

    `ssim` averages the map where its window lies inside the image, as scikit-image does; `ssim_masked` averages it
    over the hidden pixels, mirroring the image at its border.
    """

    def __init__(self) -> None:
        super().__init__("ssim", "ssim_masked")

    def update(self, prediction: Tensor, target: Tensor, mask: Tensor) -> None:
        similarity = ssim_map(prediction.float(), target.float()).double()
        inside = similarity[:, :, RADIUS:-RADIUS, RADIUS:-RADIUS]
        hidden = mask[:, None].expand_as(similarity)
        self.values["ssim"] += inside.flatten(1).mean(1).tolist()
        self.values["ssim_masked"] += ((similarity * hidden).flatten(1).sum(1) / hidden.flatten(1).sum(1)).tolist()


def ssim_map(x: Tensor, y: Tensor) -> Tensor:
    """SSIM at every pixel and channel: (B, C, height, width), the images mirrored at their borders.

    Variances are those of the images less 1/2: in float32, fewer of their digits cancel.
    """
    x, y = x - 0.5, y - 0.5
    mx, my, squares, products = blur(x), blur(y), blur(x * x + y * y), blur(x * y)
    variances, covariance = squares - mx * mx - my * my, products - mx * my
    mx, my = mx + 0.5, my + 0.5
    return ((2 * mx * my + C1) * (2 * covariance + C2)) / ((mx * mx + my * my + C1) * (variances + C2))


def blur(x: Tensor) -> Tensor:
    """Gaussian window along both axes as shifted sums, the two taps of a distance at once."""
    distance = torch.arange(RADIUS + 1, dtype=x.dtype, device=x.device)
    weights = torch.exp(-distance.square() / (2 * SIGMA**2))
    shares: list[float] = (weights / (2 * weights.sum() - 1)).tolist()
    for axis in (-2, -1):
        size = x.shape[axis]
        padded = x.index_select(axis, mirrored(size).to(x.device))
        x = padded.narrow(axis, RADIUS, size) * shares[0]
        for i, share in enumerate(shares[1:], start=1):
            x.add_(padded.narrow(axis, RADIUS - i, size) + padded.narrow(axis, RADIUS + i, size), alpha=share)
    return x


def mirrored(size: int) -> Tensor:
    """Indices of a line of `size` pixels mirrored by RADIUS at both ends, the border pixel repeated."""
    index = torch.arange(-RADIUS, size + RADIUS) % (2 * size)
    return torch.minimum(index, 2 * size - 1 - index)


class TopK(PerImage):
    """Share of images whose class is the first, or among the first five, of the scores (B, classes): in percent."""

    def __init__(self) -> None:
        super().__init__("top1", "top5")

    def update(self, scores: Tensor, classes: Tensor) -> None:
        ranked = scores.topk(min(5, scores.shape[1]), dim=1).indices == classes[:, None]
        self.values["top1"] += (100.0 * ranked[:, 0]).tolist()
        self.values["top5"] += (100.0 * ranked.any(1)).tolist()


class MeanIoU:
    """Intersection over union per class over the whole data set and its mean, and the share of right pixels: percent.

    A class that neither labels nor predictions have is skipped, or counts as zero (`absent`). Raises DataError where no
    pixel is labelled.
    """

    keys = ("miou", "pixel_accuracy")

    def __init__(self, num_classes: int, absent: str):
        self.absent, self.confusion = (
            absent,
            torch.zeros(num_classes, num_classes, dtype=torch.int64),
        )  # label, prediction

    def update(self, prediction: Tensor, label: Tensor) -> None:
        """Class ids (B, height, width); pixels labelled `num_classes` or above are ignored."""
        classes = len(self.confusion)
        pairs = label.clamp(max=classes).to(torch.int32) * classes + prediction.to(
            torch.int32
        )  # ignored pixels go to a row of their own
        counts = torch.bincount(pairs.flatten(), minlength=classes * (classes + 1)).cpu()
        self.confusion += counts[: classes * classes].view(classes, classes)

    def seen(self) -> list[list[int]]:
        """What it has seen, as plain data."""
        counts: list[list[int]] = self.confusion.tolist()
        return counts

    def merge(self, seen: list[list[int]]) -> None:
        """Add what another process has seen."""
        self.confusion += torch.tensor(seen)

    def compute(self) -> dict[str, float]:
        if not self.confusion.any():
            raise DataError("no pixel of the validation images belongs to a class: all are ignored")
        right = self.confusion.diagonal().double()
        union = self.confusion.sum(0) + self.confusion.sum(1) - right
        seen = union > 0
        iou = right[seen] / union[seen]
        count = int(seen.sum()) if self.absent == "skip" else len(seen)
        return {
            "miou": 100 * float(iou.sum()) / count,
            "pixel_accuracy": 100 * float(right.sum() / self.confusion.sum()),
        }

"""Spectral clustering of tokens, layer by layer, and its agreement with the image's regions (A.1, Figure 5).

Shapes: H W token grid, N = H W, C channels, L shown layers, S shown images.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor, nn

from afno_repro.data.transforms import IGNORED
from afno_repro.errors import ConfigError, DataError, require
from afno_repro.mixers.spectral import Grid
from afno_repro.tasks.inputs import centred
from afno_repro.visualize.pictures import Array, Pictures, means, recoloured

FEWEST_TOKENS = 40
MOST_CLUSTERS = 8  # colours that can be told apart
OTHERS = 5  # images whose regions an image's clusters are also held to
TOLERANCE = 1.0  # tokens by which a boundary may be off


class Clusters:
    """Clusters of the tokens after some layers, counted from 1, of a network with one sequence of blocks.

    The clustering is spectral (Shi and Malik 2000), on the graph of each token's `neighbours` nearest features.
    `regions` says what the clusters are compared with: the data's `labels`, or a `segmentation` of the image by its
    colours, without any label. `shown` images are kept for the figure. Metrics for each layer, `_last` for the last of
    them and without ending for their mean: `ari`, the adjusted Rand index (1 equal, 0 chance); `boundary`, see
    `boundary_score`; `ari_gain` and `boundary_gain`, the same less what the clusters reach with the regions of other
    images: zero if they only say where a token is, whatever the image shows.
    """

    def __init__(
        self,
        image_size: int,
        layers: list[int],
        clusters: int,
        neighbours: int,
        shown: int,
        regions: Literal["labels", "segmentation"],
    ):
        ascending = all(a < b for a, b in pairwise(layers))
        require(
            (
                bool(layers) and ascending and layers[0] >= 1,
                "layers",
                f"clusters: must be ascending numbers of layers from 1, is {layers}",
            ),
            (2 <= clusters <= MOST_CLUSTERS, "clusters", f"clusters: must lie in [2, {MOST_CLUSTERS}], is {clusters}"),
            (
                2 <= neighbours <= FEWEST_TOKENS,
                "neighbours",
                f"clusters: must lie in [2, {FEWEST_TOKENS}], is {neighbours}",
            ),
            (shown >= 1, "shown", f"clusters: must be at least 1, is {shown}"),
            (
                regions in ("labels", "segmentation"),
                "regions",
                f"clusters: must be labels or segmentation, is {regions}",
            ),
        )
        self.image_size, self.layers, self.clusters, self.neighbours, self.shown, self.regions = (
            image_size,
            layers,
            clusters,
            neighbours,
            shown,
            regions,
        )

    def check(self, model: nn.Module) -> None:
        """Raise ConfigError if the network, which may be on the meta device, has too few tokens or layers."""
        blocks, tokens = blocks_of(model), (self.image_size // model.strides[0]) ** 2  # type: ignore[index]
        too_few = f"clusters: at least {FEWEST_TOKENS} tokens are needed, {self.image_size} pixels give {tokens}"
        if tokens < FEWEST_TOKENS:
            raise ConfigError(too_few)
        require(
            (
                self.layers[-1] <= len(blocks),
                "layers",
                f"clusters: the network has {len(blocks)} layers, is {self.layers}",
            )
        )

    def compute(self, model: nn.Module, images: list[Tensor], labels: list[Tensor | None]) -> Pictures:
        """Cluster the tokens of uint8 images (3, height, width); images of a single region are left out.

        Arrays: `images` (S, height, width, 3), `regions` (S, H, W), `clusters` (S, L, H, W), all uint8; `layers` (L).
        """
        self.check(model)
        found: list[tuple[Array, Array]] = []
        pixels = []
        for image, label in zip(images, labels, strict=True):
            features = token_features(model, image, self.layers)
            regions = self.regions_of(image, label, (features[0].shape[0], features[0].shape[1]))
            if len(np.unique(regions[regions != IGNORED])) < 2:
                continue
            maps = same_colours([cluster(each, self.clusters, self.neighbours) for each in features])
            pixels.append(image.permute(1, 2, 0).cpu().numpy())
            found.append((regions, maps))
        if not found:
            raise DataError(f"clusters: none of {len(images)} images has two regions or more")
        scores = [
            self.scores(maps, [found[(i + k) % len(found)][0] for k in range(min(OTHERS + 1, len(found)))])
            for i, (_, maps) in enumerate(found)
        ]
        repeats = {key: [each[key] for each in scores] for key in scores[0]}
        shown = found[: self.shown]
        arrays = {
            "images": np.stack(pixels[: self.shown]),
            "regions": np.stack([r for r, _ in shown]),
            "clusters": np.stack([m for _, m in shown]),
        }
        return Pictures(means(repeats), repeats, {**arrays, "layers": np.array(self.layers)})

    def regions_of(self, image: Tensor, label: Tensor | None, grid: Grid) -> Array:
        """What clusters are compared with, a number for each token; IGNORED where a token has no labelled pixel."""
        if self.regions == "segmentation":
            return majority(segmentation(image), grid)
        if label is None or label.ndim != 2:
            raise ConfigError(
                "clusters: regions: labels needs data with a map of classes for each image\n"
                "  without one: regions: segmentation"
            )
        return majority(label.cpu().numpy(), grid)

    def scores(self, maps: Array, regions: list[Array]) -> dict[str, float]:
        """The metrics of one image, whose regions come first, and its gain over other images' regions, if any."""
        own, *others = (agreement(maps, each) for each in regions)
        values = own | (
            {f"{key}_gain": own[key] - np.mean([other[key] for other in others], axis=0) for key in own}
            if others
            else {}
        )
        each = {f"{key}_{layer}": float(line[i]) for key, line in values.items() for i, layer in enumerate(self.layers)}
        return (
            each
            | {f"{key}_last": float(line[-1]) for key, line in values.items()}
            | {key: float(line.mean()) for key, line in values.items()}
        )


def blocks_of(model: nn.Module) -> nn.Sequential:
    """The blocks of a backbone that is one sequence of them."""
    blocks = getattr(getattr(model, "backbone", None), "blocks", None)
    if not isinstance(blocks, nn.Sequential):
        raise ConfigError("clusters: the network's backbone must be one sequence of blocks, as vit is")
    return blocks


@contextmanager
def outputs(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """What the modules return inside the block, in the order in which they run."""
    seen: list[Tensor] = []
    hooks = [module.register_forward_hook(lambda module, inputs, output: seen.append(output)) for module in modules]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@torch.inference_mode()
def show(model: nn.Module, image: Tensor) -> None:
    """Run the network on a whole uint8 image (3, height, width), centred as inpainting does with nothing hidden."""
    training, device = model.training, next(model.parameters()).device
    model.eval()(centred(image.to(device), "image_mean")[None])
    model.train(training)


def token_features(model: nn.Module, image: Tensor, layers: Sequence[int]) -> list[Array]:
    """The tokens after some layers: H W C each."""
    blocks = blocks_of(model)
    with outputs([blocks[layer - 1] for layer in layers]) as seen:
        show(model, image)
    return [tokens[0].float().cpu().numpy() for tokens in seen]


def cluster(features: Array, clusters: int, neighbours: int) -> Array:
    """Spectral clustering of tokens H W C: a number for each of them, uint8 (H, W)."""
    from sklearn.cluster import SpectralClustering  # not above: other runs do without

    method = SpectralClustering(
        clusters,
        affinity="nearest_neighbors",
        n_neighbors=neighbours,
        eigen_solver="arpack",
        assign_labels="cluster_qr",
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Graph is not fully connected")  # its parts are clusters, too
        labels = method.fit_predict(features.reshape(-1, features.shape[-1]))
    return np.asarray(labels, dtype=np.uint8).reshape(features.shape[:2])


def same_colours(maps: Sequence[Array]) -> Array:
    """Each layer's clusters named after those of the layer before, the first layer's by size: L H W."""
    sizes = np.bincount(maps[0].ravel())
    named = [np.argsort(np.argsort(-sizes, kind="stable")).astype(np.uint8)[maps[0]]]
    for labels in maps[1:]:
        named.append(recoloured(labels, named[-1]))
    return np.stack(named)


def segmentation(image: Tensor) -> Array:
    """Regions of even colour (height, width) by greedy merging of pixels (Felzenszwalb and Huttenlocher 2004).

    The number of regions follows from the image, so that an even background stays whole; none is below 2% of the image.
    """
    from skimage.segmentation import felzenszwalb

    pixels = image.permute(1, 2, 0).cpu().numpy()
    regions: Array = felzenszwalb(pixels, scale=200, sigma=0.8, min_size=pixels.shape[0] * pixels.shape[1] // 50)
    return regions.astype(np.uint8)


def majority(labels: Array, grid: Grid) -> Array:
    """The commonest class of each token's pixels, at a tie the smallest, uint8 (H, W); IGNORED where none has one."""
    height, width = labels.shape[0] // grid[0], labels.shape[1] // grid[1]
    pixels = labels.reshape(grid[0], height, grid[1], width).transpose(0, 2, 1, 3).reshape(*grid, -1)
    counts = np.stack([(pixels == value).sum(-1) for value in range(IGNORED)])
    return np.where(counts.max(0) > 0, counts.argmax(0), IGNORED).astype(np.uint8)


def without_gaps(regions: Array) -> Array:
    """Ignored tokens take the nearest region: boundaries lie where labels are uncertain."""
    nearest = distance_transform_edt(regions == IGNORED, return_distances=False, return_indices=True)
    filled: Array = regions[tuple(nearest)]
    return filled


def agreement(maps: Array, regions: Array) -> dict[str, Array]:
    """How well each layer's clusters, L H W, agree with regions: L each."""
    from sklearn.metrics import adjusted_rand_score

    known, filled = regions != IGNORED, without_gaps(regions)
    return {
        "ari": np.array([adjusted_rand_score(regions[known], labels[known]) for labels in maps]),
        "boundary": np.array([boundary_score(labels, filled) for labels in maps]),
    }


def boundary_score(labels: Array, regions: Array) -> float:
    """F-score of boundaries on the token grid.

    It is that of Martin et al., "Learning to detect natural image boundaries" (TPAMI 2004).
    A boundary is the set of edges between neighbouring tokens of different labels. Precision is the share of the
    clusters' edges with an edge of the regions within a distance of one token, recall the share of the regions' edges
    with one of the clusters so near (each edge may be matched by several, as in Csurka et al., BMVC 2013).
    F = 2 P R / (P + R), 0 without any match.
    """
    ours, theirs = edges(labels), edges(regions)
    if not (ours.any() and theirs.any()):
        return 0.0
    precision, recall = near(theirs)[ours].mean(), near(ours)[theirs].mean()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def edges(labels: Array) -> Array:
    """Edges between tokens of different labels on a grid twice as fine, where token (i, j) lies at (2 i, 2 j)."""
    found = np.zeros((2 * labels.shape[0] - 1, 2 * labels.shape[1] - 1), dtype=bool)
    found[1::2, ::2] = labels[1:] != labels[:-1]
    found[::2, 1::2] = labels[:, 1:] != labels[:, :-1]
    return found


def near(found: Array) -> Array:
    """Where an edge lies within the tolerance."""
    within: Array = distance_transform_edt(~found) <= 2 * TOLERANCE
    return within

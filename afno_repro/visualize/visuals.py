"""What can be shown of a network: computed here, drawn elsewhere. A spec names a visual by its key in VISUALS."""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor, nn

from afno_repro.visualize.clustering import Clusters
from afno_repro.visualize.pictures import Pictures
from afno_repro.visualize.resolution import Resolution
from afno_repro.visualize.sparsity import Spectra
from afno_repro.visualize.training import Overlays, Triptychs


class Visual(Protocol):
    """Looks at a network and some uint8 images (3, height, width) with their labels.

    `check` raises ConfigError for a network, which may be on the meta device, that it cannot show.
    """

    def check(self, model: nn.Module) -> None: ...

    def compute(self, model: nn.Module, images: list[Tensor], labels: list[Tensor | None]) -> Pictures: ...


VISUALS: dict[str, Callable[..., Visual]] = {
    "clusters": Clusters,
    "spectra": Spectra,
    "resolution": Resolution,
    "triptychs": Triptychs,
    "overlays": Overlays,
}

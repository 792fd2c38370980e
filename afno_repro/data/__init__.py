"""Data sets by name; `load_data` gives the training and the validation images of a DataConfig."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from afno_repro.config import DataConfig
from afno_repro.data.camvid import camvid
from afno_repro.data.cityscapes import cityscapes
from afno_repro.data.digits import digits
from afno_repro.data.fewshot import datasetgan, fewshot
from afno_repro.data.folder import folder
from afno_repro.data.imagenet import imagenet
from afno_repro.data.parquet import parquet
from afno_repro.data.photos import photos
from afno_repro.data.samples import Images
from afno_repro.data.textures import textures

DATASETS: dict[str, Callable[..., tuple[Any, Any]]] = {
    "photos": photos,
    "digits": digits,
    "textures": textures,
    "imagenet": imagenet,
    "folder": folder,
    "parquet": parquet,
    "datasetgan": datasetgan,
    "fewshot": fewshot,
    "cityscapes": cityscapes,
    "camvid": camvid,
}
GIVEN = ("image_size", "fraction", "seed", "root")


def load_data(config: DataConfig, root: Path) -> tuple[Images, Images]:
    """Training and validation images; raises DataError with the layout expected where they are absent."""
    assert config.name is not None
    return DATASETS[config.name](config.image_size, config.fraction, config.seed, root, **config.options)

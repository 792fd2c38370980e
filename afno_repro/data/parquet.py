"""Images in parquet files, as Hugging Face gives data sets out: a column of `{bytes, path}`, and one of labels.

Encoded images are read by row groups, the last of which stay in memory, and decoded one by one. There are as many
classes as the schema has names of them, or as the largest label says.
"""

import json
import re
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from afno_repro.contents import Contents, named_contents
from afno_repro.data.classes import LOOKED_INTO, PLACE, Square, choice_checks, chosen, held_out
from afno_repro.data.fewshot import inside
from afno_repro.data.reading import MEGAPIXELS, decode_image, of_the_system, size_in
from afno_repro.data.transforms import Interpolation, center_square
from afno_repro.errors import DataError, require
from afno_repro.files import check_regular

LAYOUT = "FOLDER/SPLIT-00000-of-00001.parquet or FOLDER/SPLIT/0000.parquet, at most two folders further down"
SOURCE = "Hugging Face's hub gives out most sets of images so, for example CIFAR-10 as uoft-cs/cifar10"
DEPTHS = ("*.parquet", "*/*.parquet", "*/*/*.parquet")  # where a set's files may lie
NAME = re.compile(r"(?P<split>.+)-(?P<number>\d+)-of-(?P<count>\d+)")
KEPT_BYTES = 2**29  # of encoded images that each process keeps in memory
Labels = np.ndarray[Any, np.dtype[np.int64]]


def parquet(
    image_size: int,
    fraction: float,
    seed: int,
    root: Path,
    folder: str,
    validation: str,
    label: str | None,
    crop_fraction: float,
    interpolation: Interpolation,
    tuning: int | None,
    max_megapixels: int,
) -> tuple["Parquet", "Parquet"]:
    """The images of the split `train` and those of the split `validation` in a folder below the data root.

    `label` names the column of labels, null for none; `load_folders` says what the others mean. Images are in the order
    of the files and of their rows.
    """
    require(inside("parquet", folder), *choice_checks("parquet", fraction, crop_fraction, tuning, max_megapixels))
    tables = [Table(root / folder, split, max_megapixels) for split in ("train", validation)]
    labels = [table.labels(label) for table in tables]
    classes = None
    if label is not None:
        classes = tables[0].class_counts().get(label) or 1 + int(max(each.max(initial=0) for each in labels))
        for table, each in zip(tables, labels, strict=True):
            table.check_labels(each, classes)
    rows, others = map(by_label, labels)
    if tuning is not None:
        (rows, others), tables[1], labels[1] = held_out(rows, tuning), tables[0], labels[0]
    square = partial(center_square, size=image_size, crop_fraction=crop_fraction, interpolation=interpolation)
    return (
        Parquet(tables[0], labels[0], classes, chosen(rows, fraction, seed), None, None),
        Parquet(tables[1], labels[1], classes, others, square, image_size),
    )


def by_label(labels: Labels) -> dict[int, list[int]]:
    """The rows of each label, in their order."""
    return {int(label): np.flatnonzero(labels == label).tolist() for label in np.unique(labels)}


def split_files(folder: Path) -> dict[str, list[Path]]:
    """The parquet files of each split in a folder, sorted by name."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(chain.from_iterable(map(folder.glob, DEPTHS))):
        if not any(map(of_the_system, path.relative_to(folder).parts)):
            named = NAME.fullmatch(path.stem)
            found[named["split"] if named else path.parent.name if path.stem.isdigit() else path.stem].append(path)
    return found


class Table:
    """The files of a split as one table. Raises DataError where some are missing or hold no images."""

    def __init__(self, folder: Path, split: str, megapixels: int = MEGAPIXELS):
        self.folder, self.megapixels, self.files = folder, megapixels, split_files(folder).get(split, [])
        if not self.files:
            hint = f"expected below the data root: {LAYOUT.replace('FOLDER', folder.name)}\n  {SOURCE}; {PLACE}"
            splits = ", ".join(split_files(folder)) or "none"
            raise DataError(f"parquet: no files of the split {split!r} in {folder} (splits: {splits})\n  {hint}")
        named = [found for file in self.files if (found := NAME.fullmatch(file.stem))]
        if named and [int(each["number"]) for each in named] != list(range(int(named[0]["count"]))):
            told = f"files of the split {split!r}: {', '.join(file.name for file in self.files)}"
            raise DataError(f"parquet: {folder}: not one of each of the {int(named[0]['count'])} {told}")
        self.groups: list[tuple[Path, int, int]] = []  # file, row group, its first row in the file
        counts = []
        for file in self.files:
            with reading(file) as opened:
                column = _image_column(file, opened.schema_arrow)
                rows = [opened.metadata.row_group(i).num_rows for i in range(opened.num_row_groups)]
            self.groups += [(file, i, start) for i, start in enumerate([0, *accumulate(rows)][:-1])]
            counts += rows
        self.starts, self.column = np.array([0, *accumulate(counts)]), column
        self.kept: OrderedDict[int, Any] = OrderedDict()

    def __len__(self) -> int:
        return int(self.starts[-1])

    def place(self, row: int) -> str:
        """The file and the row in it, for messages."""
        group, at = self._find(row)
        return f"{self.groups[group][0]}: row {self.groups[group][2] + at}"

    def encoded(self, row: int) -> bytes:
        """The encoded image of a row. Raises DataError where there is none."""
        group, at = self._find(row)
        found: bytes | None = self._group(group)[at].as_py()
        if found is None:
            raise DataError(f"{self.place(row)}: holds no image, or only the name of one")
        return found

    def image(self, row: int) -> Tensor:
        """The image of a row, uint8 (3, height, width)."""
        return decode_image(self.encoded(row), self.place(row), self.megapixels)

    def size(self, row: int) -> tuple[int, int]:
        """Height and width of a row's image, from its header."""
        return size_in(self.encoded(row), self.place(row), self.megapixels)

    def labels(self, column: str | None) -> Labels:
        """The labels of all rows, zero without a column. Raises DataError where it is absent or holds other things."""
        import pyarrow as pa

        if column is None:
            return np.zeros(len(self), np.int64)
        found = []
        for file in self.files:
            with reading(file) as opened:
                if column not in opened.schema_arrow.names:
                    names = ", ".join(opened.schema_arrow.names)
                    raise DataError(f"{file}: has no column {column!r} (columns: {names})")
                values = opened.read([column], use_threads=False)[column]
            if not pa.types.is_integer(values.type) or values.null_count:
                raise DataError(f"{file}: column {column!r}: must hold whole numbers, holds {values.type} or nothing")
            found.append(values.to_numpy().astype(np.int64))
        return np.concatenate(found)

    def check_labels(self, labels: Labels, classes: int) -> None:
        """Raise DataError for a label that is no class; sets without labels have -1."""
        wrong = np.flatnonzero((labels < 0) | (labels >= classes))
        if len(wrong):
            told = f"label {labels[wrong[0]]}, but the classes are 0 to {classes - 1}"
            raise DataError(f"{self.place(wrong[0])}: {told}\n  label: null reads the images without labels")

    def class_counts(self) -> dict[str, int]:
        """How many names of classes the schema has for each column that has some, as Hugging Face writes them."""
        with reading(self.files[0]) as opened:
            metadata = opened.schema_arrow.metadata or {}
        try:
            features = json.loads(metadata[b"huggingface"])["info"]["features"]
            return {name: len(of["names"]) for name, of in features.items() if of.get("names")}
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
            return {}

    def _find(self, row: int) -> tuple[int, int]:
        group = int(np.searchsorted(self.starts, row, side="right")) - 1
        return group, row - int(self.starts[group])

    def _group(self, number: int) -> Any:
        """The encoded images of a row group."""
        if number not in self.kept:
            file, group, _ = self.groups[number]
            with reading(file) as opened:
                table = opened.read_row_group(group, [f"{self.column}.bytes"], use_threads=False)
                self.kept[number] = table.flatten()[0].combine_chunks()
            while len(self.kept) > 1 and sum(each.nbytes for each in self.kept.values()) > KEPT_BYTES:
                self.kept.popitem(last=False)
        self.kept.move_to_end(number)
        return self.kept[number]


@contextmanager
def reading(file: Path) -> Iterator[Any]:
    """A parquet file, open. Raises DataError where it is none or is damaged."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        check_regular(file)
        with ParquetFile(file) as opened:
            yield opened
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{file}: not a readable parquet file ({str(error).partition(chr(10))[0]})") from error


def _image_column(file: Path, schema: Any) -> str:
    import pyarrow as pa

    found = [of.name for of in schema if pa.types.is_struct(of.type) and of.type.get_field_index("bytes") >= 0]
    if len(found) != 1:
        told = f"must have one column of images {{bytes, path}}, has {len(found)} (columns: {', '.join(schema.names)})"
        raise DataError(f"{file}: {told}")
    return str(found[0])


class Parquet:
    """Images of some rows of a table: whole ones to train on (`square` is None), squares to evaluate."""

    def __init__(
        self,
        table: Table,
        labels: Labels,
        classes: int | None,
        rows: dict[int, list[int]],
        square: Square | None,
        side: int | None,
    ):
        self.table, self.labels, self.num_classes, self.square, self.side = table, labels, classes, square, side
        self.rows = list(chain.from_iterable(rows.values()))
        self.files = table.files

    def fingerprint(self, contents: Contents) -> str:
        """SHA-256 of the names and bytes of the split's files."""
        names = (str(file.relative_to(self.table.folder)) for file in self.files)
        return named_contents(names, self.files, contents)

    def __len__(self) -> int:
        return len(self.rows)

    def sizes(self) -> set[tuple[int, int]]:
        """Heights and widths: of whole images, those of the first LOOKED_INTO."""
        if self.side is not None:
            return {(self.side, self.side)}
        return {self.table.size(row) for row in self.rows[:LOOKED_INTO]}

    def example(self, index: int, rng: np.random.Generator) -> tuple[Tensor, Tensor | None]:
        """The image of this index, uint8 (3, height, width), and its label."""
        row = self.rows[index]
        image = self.table.image(row)
        label = None if self.num_classes is None else torch.tensor(self.labels[row])
        return image if self.square is None else self.square(image), label


def problems(folder: Path) -> Iterator[str]:
    """Every split that cannot be used and every image that cannot be read, as `path: what is wrong`; decodes all."""
    for split in split_files(folder):
        try:
            table = Table(folder, split)
        except DataError as error:
            yield str(error).partition("\n")[0]
            continue
        for row in range(len(table)):
            try:
                table.image(row)
            except DataError as error:
                yield str(error)


def left_out(folder: Path) -> Iterator[str]:
    """Parquet files that are not used: those of systems, and hidden ones."""
    used = set(chain.from_iterable(split_files(folder).values()))
    yield from (str(path) for path in sorted(chain.from_iterable(map(folder.glob, DEPTHS))) if path not in used)

"""A spec mirrors its table: title, columns and rows in the paper's order, the paper's cell values, open choices.

pydantic lives here: it checks the structure of what `reader.py` reads.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from afno_repro.spec.claims import Claim, Learned, ScaleName
from afno_repro.spec.figures import STRICT, Figure, Shown
from afno_repro.spec.names import Name, RowName, Seed, Source
from afno_repro.spec.tree import Tree

SCALES = ("smoke", "tiny", "small", "paper")


class Column(BaseModel):
    """One column: where its number comes from (`source` is stage/metric) and how the paper prints it."""

    model_config = STRICT
    key: Name
    title: str
    source: Source
    digits: int
    unit: str = ""
    at: Literal["scale", "paper"] = "scale"  # paper: from the paper's own model at every scale
    higher_is_better: bool
    printed: bool = True  # False: in cells.csv and the notes, not in the table


class Row(BaseModel):
    """One line of the table; a key that is a stage's name holds the row's changes to that stage, null leaves it out."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    key: RowName
    title: list[str]
    model: dict[str, Any] | None
    paper: dict[str, float | None] = {}
    printed: bool = True  # False: an extra row that the paper does not have
    quoted: str = ""  # whose numbers the paper took over for this row, where it did not measure them


class Scale(BaseModel):
    """What a scale changes: the model, stages by name, single rows, columns; `seeds` are its random seeds."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    seeds: list[Seed]
    model: dict[str, Any] = {}
    rows: dict[str, dict[str, Any]] = {}
    columns: dict[str, dict[str, Any]] = {}
    unavailable: dict[
        str, str
    ] = {}  # stages that nobody can run at this scale, with the reason: their cells are missing


class Assumption(BaseModel):
    """A choice where the paper is silent; `cells` are the cost cells (row/column) that agree only because of it."""

    model_config = STRICT
    key: str
    choice: Any
    why: str
    cells: list[str] = []


class Structure(BaseModel):
    """The keys of a spec's file."""

    model_config = STRICT
    title: str
    group: str
    row_title: list[str]
    counting: dict[str, Any]
    model: dict[str, Any]
    stages: dict[Name, dict[str, Any]]
    columns: list[Column]
    rows: list[Row]
    scales: dict[ScaleName, Scale]
    learned: list[Learned] = []
    claims: list[Claim] = []
    choices_of: Name | None = None  # the spec whose claims are tested here under choices that it did not make
    assumptions: list[Assumption] = []
    figures: list[Figure] = []
    remarks: list[str] = []  # what does not add up in the paper's table


@dataclass(frozen=True)
class Spec:
    """One YAML file. `tree` is the file itself, whose levels the plan merges; files that it names begin at `root`."""

    name: str
    tree: Tree
    structure: Structure
    root: Path = Path()

    @property
    def rows(self) -> list[Row]:
        return self.structure.rows

    @property
    def stages(self) -> list[str]:
        return list(self.structure.stages)

    def row(self, key: str) -> Row:
        return next(row for row in self.rows if row.key == key)

    def row_tree(self, key: str) -> Tree:
        """The row as it stands in the file."""
        rows = self.tree.value["rows"].value
        found: Tree = next(tree for tree in rows if tree.value["key"].value == key)
        return found

    def draws(self, stage: str) -> bool:
        """Whether a figure shows what the runs of a stage have."""
        return any(isinstance(figure, Shown) and figure.stage == stage for figure in self.structure.figures)

    def columns(self, scale: str) -> list[Column]:
        """The columns, with the changes that a scale makes."""
        changes = self.structure.scales[scale].columns if scale in self.structure.scales else {}
        return [_changed(column, changes.get(column.key, {}))[0] for column in self.structure.columns]

    def column_problems(self, key: str, changes: dict[str, Any]) -> list[str]:
        """What is wrong with a scale's changes to a column."""
        return next(_changed(column, changes)[1] for column in self.structure.columns if column.key == key)


def _changed(column: Column, changes: dict[str, Any]) -> tuple[Column, list[str]]:
    """A column with a scale's changes, or as it was with what is wrong with them."""
    if not changes:
        return column, []
    try:
        return Column.model_validate({**column.model_dump(), **changes}), []
    except ValidationError as error:
        return column, [
            f"{'.'.join(map(str, item['loc']))}: {item['msg'][0].lower()}{item['msg'][1:]}" for item in error.errors()
        ]

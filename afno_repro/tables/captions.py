"""A figure in words: what it shows, of which networks, and what is to be seen, from the table's own numbers."""

from collections.abc import Sequence

from afno_repro.spec.figures import Ablation, Families, Figure, Shown
from afno_repro.spec.spec import Column, Row
from afno_repro.tables.figures import family, measured, networks, stem_of
from afno_repro.tables.grid import here
from afno_repro.tables.learning import stage_of, unlearned
from afno_repro.tables.numbers import number
from afno_repro.tables.spread import spread_over
from afno_repro.tables.table import Table
from afno_repro.tables.table_section import label

WHAT = {
    "training": "training loss by step, and a metric of the validation",
    "clusters": "tokens clustered by layer and mixer, beside the images and their regions",
    "spectra": "magnitudes after soft-thresholding by frequency, and the fraction set to zero, layer by layer",
    "triptychs": "masked, rebuilt and true images, a line for each mixer",
    "overlays": "images, their labels and what each mixer predicts",
}


def captions(table: Table) -> dict[str, str]:
    """A caption for each figure of the table's spec, by the name of its files, for who reads words alone."""
    return {
        stem_of(table, figure): f"{label(stem_of(table, figure))}: {_caption(table, figure)}"
        for figure in table.spec.structure.figures
    }


def _caption(table: Table, figure: Figure) -> str:
    columns = {column.key: column for column in table.columns}
    match figure:
        case Families():
            x, y = columns[figure.x], columns[figure.y]
            shown = f"{measured(y)} of {networks(table.scale)} against {measured(x)} of the paper's"
            return f"{shown}. Highest of each family: {_highest(table, x, y)}.{_over(table, [y])}"
        case Ablation():
            found = [columns[key] for key in figure.columns if key in columns]
            ends = "; ".join(_ends(table, figure, column) for column in found)
            peak = "" if figure.peak is None else f" The paper's peak is at {figure.peak:g}."
            return f"{networks(table.scale)} by {figure.axis}. {ends}.{peak}{_over(table, found)}"
        case Shown():
            return f"{WHAT[figure.name]}; {networks(table.scale)}. {_seen(table, figure)}"


def _highest(table: Table, x: Column, y: Column) -> str:
    best: dict[str, Row] = {}
    for row in table.spec.rows:
        value, before = table.cell(row, y).value, best.get(family(row))
        if (
            table.cell(row, x).value is not None
            and value is not None
            and (before is None or value > (table.cell(before, y).value or 0.0))
        ):
            best[family(row)] = row
    said = (f"{name} {_value(table, row, y)} at {number(table.cell(row, x).value, x)}" for name, row in best.items())
    return "; ".join(said) or "none yet"


def _ends(table: Table, figure: Ablation, column: Column) -> str:
    """Where along its axis a column is highest and lowest."""
    options = {row.key: ((row.model or {}).get("mixer") or {}).get(figure.option) for row in table.spec.rows}
    rows = [r for r in table.spec.rows if options[r.key] is not None and table.cell(r, column).value is not None]
    if not rows:
        return f"{measured(column)}: none yet"
    rows.sort(key=lambda row: table.cell(row, column).value or 0.0)
    high, low = (f"at {options[row.key]:g}, {_value(table, row, column)}" for row in (rows[-1], rows[0]))
    return f"{measured(column)} is highest {high}, lowest {low}"


def _seen(table: Table, figure: Shown) -> str:
    """What the stage measured, or the one whose networks it shows: of one row every column, else one of each row.

    Fillings are no part of a training.
    """
    stage, trained = figure.stage, figure.name == "training"
    of = stage if any(stage_of(c) == stage for c in table.columns) else table.spec.structure.stages[stage].get("init")
    columns = [column for column in table.columns if stage_of(column) == of and column.printed]
    rows = [row for row in table.spec.rows if row.model is not None or not trained]
    rows = [row for row in rows if any(table.cell(row, column).value is not None for column in columns)]
    if not rows:
        return "Nothing is measured yet."
    if of == stage and len(rows) > 1:
        columns = columns[:1]
    elif len(rows) > 1:
        columns = columns[-1:]
    parts = []
    for column in columns:
        values = [
            f"{row.title[-1]} {_value(table, row, column)}" for row in rows if table.cell(row, column).value is not None
        ]
        parts.append(f"{measured(column)}: {', '.join(values)}")
    return f"{'; '.join(parts)}.{_over(table, columns)}"


def _value(table: Table, row: Row, column: Column) -> str:
    return here(table.cell(row, column), column, (row.key, stage_of(column)) in unlearned(table))


def _over(table: Table, columns: Sequence[Column]) -> str:
    over = spread_over(table.cell(row, column) for column in columns for row in table.spec.rows)
    return f" ± is the standard deviation over {over}." if over else ""

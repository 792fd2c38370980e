"""Numbers as text: as the paper rounds them, with signs, with intervals."""

import math

from afno_repro.spec.spec import Column
from afno_repro.tables.inference import Estimate


def number(value: float | None, column: Column) -> str:
    """A value rounded as the paper prints its column."""
    return "" if value is None else f"{value:.{column.digits}f}"


def percent(value: float) -> str:
    """A difference with its sign, to two digits or to whole percents."""
    return f"{value:+.0f}%" if abs(value) >= 10 else f"{value:+.2g}%"


def six(value: float | None) -> str:
    """Six digits, or nothing for what is not known."""
    return "" if value is None or not math.isfinite(value) else f"{value:.6g}"


def signed(value: float, column: Column) -> str:
    """A difference with its sign and unit."""
    return f"{value:+.{_digits(column)}f}{f' {column.unit}' if column.unit else ''}"


def interval(found: Estimate, column: Column) -> str:
    """The 95% interval of a difference, or nothing where there is none."""
    if found.error == 0 or not math.isfinite(found.reach):
        return ""
    low, high = (f"{end:+.{_digits(column)}f}" for end in found.interval)
    return f"[{low}, {high}]"


def _digits(column: Column) -> int:
    """Of differences, which are smaller than what the paper prints to one digit."""
    return max(2, column.digits)


def p_value(p: float) -> str:
    """Two digits of a p; very small ones are alike."""
    return "< 0.001" if p < 0.001 else f"{p:.2g}"

"""Numbers as text: as the paper rounds them, with signs, with intervals, with what they count."""

import math
from typing import TYPE_CHECKING

from afno_repro.spec.spec import Column

if TYPE_CHECKING:
    from afno_repro.tables.inference import Estimate


def number(value: float | None, column: Column, beside: float | None = None) -> str:
    """A value rounded as the paper prints its column, or to two digits where that would be zero.

    A spread has the digits of the value that it stands beside.
    """
    if value is None:
        return ""
    leading = value if beside is None else beside
    vanishes = 0 < abs(leading) < 0.5 * 10**-column.digits
    return f"{value:.{1 - math.floor(math.log10(abs(leading))) if vanishes else column.digits}f}"


def percent(value: float) -> str:
    """A difference with its sign, to two digits or to whole percents."""
    return f"{value:+.0f}%" if abs(value) >= 10 else f"{value:+.2g}%"


def six(value: float | None) -> str:
    """Six digits, or nothing for what is not known."""
    return "" if value is None or not math.isfinite(value) else f"{value:.6g}"


def signed(value: float, column: Column) -> str:
    """A difference with its sign and unit."""
    return f"{_plus(value, max(2, column.digits))}{f' {column.unit}' if column.unit else ''}"


def interval(found: "Estimate", column: Column) -> str:
    """The 95% interval of a difference, to as many digits as tell that zero lies outside; or nothing without one."""
    if found.error == 0 or not math.isfinite(found.reach):
        return ""
    (low, high), digits = found.interval, max(2, column.digits)
    nearest = min(abs(low), abs(high))
    if low * high > 0 and nearest < 0.5 * 10**-digits:
        digits = -math.floor(math.log10(nearest))
    return f"[{_plus(low, digits)}, {_plus(high, digits)}]"


def _plus(value: float, digits: int) -> str:
    """A difference with its sign, which zero has not: to two digits at least, for it may be small."""
    text = f"{value:+.{digits}f}"
    return text if float(text) else text[1:]


def counted(n: int, what: str) -> str:
    """So many of something, as in 1 run and 2 runs."""
    return f"{n} {what}{'s' * (n != 1)}"


def p_value(p: float) -> str:
    """Two digits of a p; very small ones are alike."""
    return "< 0.001" if p < 0.001 else f"{p:.2g}"

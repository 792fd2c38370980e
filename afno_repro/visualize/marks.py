"""One colour and one marker for each mixer, in every figure."""

from collections.abc import Iterable
from typing import NamedTuple

LINES = ("-", "--", ":", "-.")  # of several rows with one mixer


class Mark(NamedTuple):
    """How a row is drawn."""

    color: str
    marker: str
    line: str = "-"


MIXERS = {  # in the colours of Okabe and Ito 2008
    "self_attention": Mark("#0072B2", "o"),
    "efficient_self_attention": Mark("#56B4E9", "s"),
    "long_short": Mark("#E69F00", "^"),
    "gfn": Mark("#009E73", "D"),
    "fno": Mark("#CC79A7", "v"),
    "afno": Mark("#D55E00", "P"),
}
OTHERS = (Mark("#000000", "X"), Mark("#999999", "*"), Mark("#661100", "h"))  # as they come


def marks(mixers: Iterable[str]) -> list[Mark]:
    """The marks of some rows with these mixers; those that share one have lines of their own."""
    names = list(mixers)
    others = [name for name in dict.fromkeys(names) if name not in MIXERS]
    found = {**MIXERS, **{name: OTHERS[i % len(OTHERS)] for i, name in enumerate(others)}}
    return [found[name]._replace(line=LINES[names[:i].count(name) % len(LINES)]) for i, name in enumerate(names)]

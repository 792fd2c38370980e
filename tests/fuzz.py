"""What the fuzz tests share: damaged bytes, junk for trees, and one rule.

A program ends in a result or in a documented error, soon.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from afno_repro.errors import AfnoError

EXIT_CODES, LIMIT_S = (2, 3, 6, 7), 10
WORDS = st.sampled_from(
    [
        "name",
        "model",
        "cost",
        "pretrain",
        "task",
        "train",
        "data",
        "rows",
        "key",
        "init",
        "kind",
        "",
        "\x00",
        "../x",
        "é" * 300,
    ]
)
NUMBERS = (
    st.sampled_from([0, -1, 1.5, 2**31, 2**63, -(10**18), 10**18, 10**30, 1e-300, 1e300]) | st.integers() | st.floats()
)
JUNK = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=20) | WORDS,
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(WORDS | st.text(max_size=5), children, max_size=3)
    ),
    max_leaves=6,
)


def cases(count: int) -> settings:
    """The same cases in every run of the tests, none kept."""
    return settings(
        derandomize=True, database=None, deadline=None, max_examples=count, suppress_health_check=list(HealthCheck)
    )


@contextmanager
def documented(*also: type[Exception]) -> Iterator[None]:
    """Let pass what ends soon, without an error or with one for users; `also` are errors that a docstring names."""
    started, told = time.monotonic(), None
    try:
        yield
    except (AfnoError, *also) as error:
        told = error
    assert told is None or str(told).strip()
    assert not isinstance(told, AfnoError) or told.exit_code in EXIT_CODES
    assert time.monotonic() - started < LIMIT_S


EDITS = st.tuples(
    st.sampled_from(["set", "flip", "insert", "delete", "cut", "copy"]),
    st.floats(0, 1, exclude_max=True) | st.floats(0, 0.1),  # headers come first
    st.sampled_from(
        [b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\1\0\0", b"[[[[", b"\n", b": "]
    )
    | st.binary(min_size=1, max_size=8),
)


def damaged(whole: bytes) -> st.SearchStrategy[bytes]:
    """The bytes after a few edits."""
    return st.lists(EDITS, min_size=1, max_size=4).map(lambda edits: edited(whole, edits))


def edited(whole: bytes, edits: list[tuple[str, float, bytes]]) -> bytes:
    data = bytearray(whole)
    for kind, share, piece in edits:
        at = int(share * len(data))
        if kind == "set":
            data[at : at + len(piece)] = piece
        elif kind == "flip" and data:
            data[at] ^= 1 << piece[0] % 8
        elif kind == "insert":
            data[at:at] = piece
        elif kind == "delete":
            del data[at : at + piece[0]]
        elif kind == "cut":
            del data[at:]
        elif kind == "copy":
            data[at:at] = data[: piece[0]]
    return bytes(data)


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The keys of every part of a tree."""
    if path:
        yield path
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def replaced(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    """The tree with another value at a place."""
    if not path:
        return value
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    copy[path[0]] = replaced(tree[path[0]], path[1:], value)
    return copy


def mutated(tree: Any) -> st.SearchStrategy[Any]:
    """The tree with junk at one place."""
    return st.tuples(st.sampled_from(list(places(tree))), JUNK).map(lambda change: replaced(tree, *change))

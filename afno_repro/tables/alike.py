"""What of a table was not made alike: from another training than the one shown, with other data, on another machine."""

from collections.abc import Iterator, Mapping
from typing import Any

from afno_repro.runs.record import Record
from afno_repro.spec.plan import Need, Run

DATA, MACHINE = "other data", "other machine"  # marks of a cell
WHY = {
    DATA: "rows or seeds saw other data than these, where the spec asks for the same",
    MACHINE: "rows were timed on another device or with another number of threads",
}
UNDECIDED = {DATA: "the rows saw other data", MACHINE: "the rows were timed on different devices or numbers of threads"}


def is_orphan(run: Run, record: Record, known: Mapping[str, Record | None]) -> bool:
    """Whether a record started from another training than the one that the table shows; `known` are those, by digest.

    None is one that is itself not shown.
    """
    if run.parent is None or run.parent.digest not in known:
        return False
    parent, before = known[run.parent.digest], record.provenance.get("parent") or {}
    return parent is None or any(parent.provenance.get(key) != value for key, value in before.items())


def apart(needs: Mapping[Need, Run], found: Mapping[Need, Record]) -> dict[tuple[str, str], str]:
    """By row and stage, the mark of those whose data, or machines for latencies, should be the same and are not."""
    by_digest = {record.digest: record for record in found.values()}
    groups: dict[tuple[str, ...], dict[Any, set[tuple[str, str]]]] = {}
    for need, record in found.items():
        for asked, seen in (*_timed_on(record), *_fed(needs[need], record.provenance.get("data"), by_digest)):
            groups.setdefault(asked, {}).setdefault(seen, set()).add(need[:2])
    marks = {asked: set().union(*seen.values()) for asked, seen in groups.items() if len(seen) > 1}
    return {place: asked[0] for asked, places in marks.items() for place in places}


def _timed_on(record: Record) -> Iterator[tuple[tuple[str, ...], Any]]:
    """What the latencies of a table should have in common."""
    if "latency_s" in record.metrics:
        yield (MACHINE,), (record.provenance["device"], record.provenance.get("threads"))


def _fed(run: Run, seen: str | None, records: Mapping[str, Record]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The data that a run was fed, and the runs that it came from, set by set: what was asked for, and its content."""
    names = ("training", "validation") if run.config.train is not None else ("validation",)
    for name, content in zip(names, (seen or "").split("/"), strict=False):
        if content:
            yield (DATA, name, repr(run.config.data)), content[:16]
    if run.parent is not None:
        mine, parents = records.get(run.digest), records.get(run.parent.digest)
        before = (mine.provenance.get("parent") or {}).get("data") if mine else None
        yield from _fed(run.parent, parents.provenance.get("data") if parents else before, records)

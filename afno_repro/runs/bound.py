"""What a run is bound to besides its config: the content of its data, and the run that it starts from."""

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afno_repro.config import Machine, RunConfig, config_from_json, digest
from afno_repro.contents import Contents
from afno_repro.errors import DataError, Problem
from afno_repro.files import read_regular
from afno_repro.runs.provenance import PACKAGES, installed
from afno_repro.runs.record import MAX_BYTES
from afno_repro.runs.store import CONFIG, PUT_BACK, WEIGHTS, Store
from afno_repro.spec.plan import Run
from afno_repro.spec.resolve import TRAINED

if TYPE_CHECKING:
    from afno_repro.data.samples import Images

PACKAGED = ("photos", "digits", "textures")  # sets that come inside installed packages
PARTS = ("training", "validation")
SHOWN = 5


@dataclass(frozen=True)
class Fed:
    """The content of a run's data: fingerprints of its parts, and how many images each has."""

    fingerprint: str  # as records have it
    images: tuple[int, ...]


def contents(machine: Machine) -> Contents:
    """What is remembered of files that were read, below the runs."""
    return Contents(machine.runs_root / "contents")


def fed(config: RunConfig, sets: "tuple[Images, Images]", machine: Machine) -> Fed:
    """What a run is fed: training and validation images where it trains, else the validation images alone."""
    read = contents(machine)
    if config.kind in TRAINED:
        return Fed("/".join(part.fingerprint(read)[:16] for part in sets), tuple(map(len, sets)))
    return Fed(sets[1].fingerprint(read), (len(sets[1]),))


def fed_of(config: RunConfig, machine: Machine) -> Fed | None:
    """What a run is fed; None where it is fed nothing."""
    from afno_repro.data import load_data  # not above: most commands look at no data

    return None if config.data.name is None else fed(config, load_data(config.data, machine.data_root), machine)


def left_out(config: RunConfig, machine: Machine) -> dict[str, Any]:
    """How many files of a run's data are not used, and the first of them; nothing where it cannot be told any more."""
    from afno_repro.data.catalog import left_out_of

    with suppress(DataError, OSError):
        found = left_out_of(config.data, machine.data_root)
        return {"left_out": found["count"], "first_left_out": found["first"]}
    return {}


def other_data(runs: Iterable[Run], machine: Machine) -> dict[str, Problem]:
    """By digest, the finished and half-done runs that were made with other data than those at hand, and what differs.

    Data that are absent now differ from nothing. Those of installed packages are the same as long as the packages are.
    """
    store, known = Store(machine.runs_root), dict[str, Fed | None]()
    found: dict[str, Problem] = {}
    for run in runs:
        before = store.fed(run)
        if before is None or run.config.data.name is None:
            continue
        fingerprint, images, packages = before
        if run.config.data.name in PACKAGED and packages == {name: installed(name) for name in PACKAGES}:
            continue
        key = repr((run.config.data, run.config.kind in TRAINED))
        if key not in known:
            try:
                known[key] = fed_of(run.config, machine)
            except DataError:
                known[key] = None
        now = known[key]
        if now is not None and now.fingerprint != fingerprint:
            found[run.digest] = _differs(run, fingerprint, images, now)
    return found


def _differs(run: Run, before: str, counts: tuple[int, ...], now: Fed) -> Problem:
    then, here = before.split("/"), now.fingerprint.split("/")
    changes = []
    for i, part in enumerate(PARTS[-len(here) :]):
        if then[i : i + 1] != here[i : i + 1]:
            counted = f"{counts[i]} then, {now.images[i]} now" if i < len(counts) else f"{now.images[i]} now"
            changes.append(f"{part} images, {counted}")
    message = f"{run.id} was made with other data: {before}, now {now.fingerprint} (what differs: {'; '.join(changes)})"
    return Problem(message, (), "--rerun does it again with these data in its place, --runs FOLDER keeps both")


def altered(run: Run, machine: Machine) -> str:
    """What a finished run has left that is not what its record names, or nothing."""
    store = Store(machine.runs_root)
    record, directory = store.record(run.digest), store.find(run.digest)
    if record is None or directory is None:
        return ""
    sums = {WEIGHTS: record.provenance.get("weights"), **(record.provenance.get("files") or {})}
    known = {directory / name: expected for name, expected in sums.items() if expected and (directory / name).exists()}
    found = contents(machine).hashes(known)
    wrong = [path for path, now in zip(known, found, strict=True) if now != known[path]]
    config = directory / CONFIG
    wrong += [config] if config.exists() and digest_of(config) != run.digest else []
    return f"{', '.join(map(str, wrong))}: not what {run.id} has written\n  {PUT_BACK}" if wrong else ""


def digest_of(config: Path) -> str:
    """The digest of a config.json; empty where it is none."""
    try:
        return digest(config_from_json(json.loads(read_regular(config, MAX_BYTES))))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""


def unread(runs: Iterable[Run], machine: Machine) -> tuple[int, int]:
    """How many files of the runs' data were not read before, and their bytes: what a fingerprint will take."""
    from afno_repro.data import load_data

    files: set[Path] = set()
    for config in {repr(run.config.data): run.config.data for run in runs if run.config.data.name}.values():
        with suppress(DataError):
            files |= {file for part in load_data(config, machine.data_root) for file in part.files}
    return contents(machine).unread(sorted(files))

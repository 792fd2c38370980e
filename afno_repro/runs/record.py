"""What a run came to, as JSON that a flipped bit cannot pass."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, get_type_hints

from afno_repro.config import RunConfig, config_from_json, digest
from afno_repro.files import read_regular
from afno_repro.options import fits

MAX_BYTES, LONGEST_S = 64 * 2**20, 1e12  # of a record's file, and of what it tells of
OUTCOMES = ("ok", "out_of_memory", "diverged")
PROVENANCE = {  # in every record
    "commit": str | None,
    "dirty": bool | None,
    "packages": dict[str, str | None],
    "python": str,
    "device": str,
    "devices": int,
    "seconds": float,
}
BOUND = {  # in those that know what they are bound to
    "data": str | None,
    "images": list[int],
    "left_out": int,
    "first_left_out": list[str],
    "source": str | None,
    "weights": str | None,
    "files": dict[str, str],
    "parent": dict[str, str | None] | None,
}


@dataclass(frozen=True)
class Record:
    """What a run came to. `repeats` are the single values behind a metric that was measured several times."""

    run_id: str
    digest: str
    config: RunConfig
    outcome: str  # ok, out_of_memory or diverged
    metrics: Mapping[str, float]
    repeats: Mapping[str, list[float]]
    provenance: Mapping[str, Any]
    evaluations: tuple[Mapping[str, Any], ...] = ()  # made later from the weights: metrics, data, source

    @property
    def stretches(self) -> list[Mapping[str, Any]]:
        """What it was made with, oldest first: several where a command continued what another one had begun."""
        return [*self.provenance.get("before", ()), self.provenance]

    @property
    def source(self) -> str | None:
        """The source that made it, or those that did, one after the other."""
        found = list(dict.fromkeys(each.get("source") for each in self.stretches))
        return found[0] if len(found) == 1 else ", then ".join(map(str, found))

    @property
    def seconds(self) -> float:
        """How long it took."""
        return sum(float(each["seconds"]) for each in self.stretches)

    @property
    def device_seconds(self) -> float:
        """How long all its devices together took."""
        return sum(float(each["seconds"] * each.get("devices", 1)) for each in self.stretches)

    @property
    def scores(self) -> dict[str, float]:
        """The metrics, with those that were evaluated later."""
        return {**{key: each["metrics"][key] for key, each in self.later.items()}, **self.metrics}

    @property
    def later(self) -> dict[str, Mapping[str, Any]]:
        """The newest evaluation, on the run's own validation images, of each metric that the run did not measure.

        What the run measured stays: newer source may compute something else from the same weights.
        """
        own = str(self.provenance.get("data") or "").rpartition("/")[2]
        of = {key: each for each in self.evaluations if each["data"] == own for key in each["metrics"]}
        return {key: each for key, each in of.items() if key not in self.metrics}

    def to_json(self) -> str:
        """The text of record.json, with a checksum of the rest."""
        tree = asdict(self)
        tree |= {"evaluations": list(self.evaluations)}
        if not self.evaluations:
            del tree["evaluations"]
        return json.dumps(tree | {"sha256": _checksum(tree)}, indent=1, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Record":
        """Read record.json; raises ValueError when it is not one, or its digest or checksum is not right.

        The digest is its config's, the checksum that of the rest.
        """
        try:
            tree = json.loads(text, parse_constant=_no_number)
            if (checksum := tree.pop("sha256", None)) != _checksum(tree):
                raise ValueError(f"its bytes are not those that were written (sha256 {checksum})")
            later = tuple(tree.get("evaluations", ()))
            record = cls(**{**tree, "config": config_from_json(tree["config"]), "evaluations": later})
            if wrong := _wrong(record):
                raise ValueError(f"not a record: {', '.join(f'{key} is {value!r}' for key, value in wrong.items())}")
            if "\\u" in text or not text.isascii():
                json.dumps(tree, ensure_ascii=False).encode()  # half a surrogate pair is no text
            identity = digest(record.config)
        except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise ValueError(f"not a record: {error}") from None
        if record.digest != identity:
            raise ValueError("the digest is not that of the config")
        return record


def read_record(path: Path) -> Record:
    """The record in a file; raises OSError where none can be read, ValueError where it is none."""
    return Record.from_json(read_regular(path, MAX_BYTES).decode())


def _no_number(text: str) -> Any:
    raise ValueError(f"not a record: {text} is no number")


@cache
def _hints() -> dict[str, Any]:
    return get_type_hints(Record)


def _wrong(record: Record) -> dict[str, Any]:
    """Fields of another type than they should have, by name; some errors say that there are such."""
    wrong = {
        key: getattr(record, key)
        for key, hint in _hints().items()
        if key not in ("config", "evaluations") and not fits(getattr(record, key), hint)
    }
    provenance = {"devices": 1, "before": [], **record.provenance}  # the first records did not say how many
    wrong |= {f"provenance.{key}": value for key, value in misfits(provenance).items()}
    before = provenance["before"]
    wrong |= {"provenance.before": before} if not isinstance(before, list) or any(map(misfits, before)) else {}
    hints = {"metrics": dict[str, float], "data": str}
    wrong |= {
        f"evaluations.{i}": each
        for i, each in enumerate(record.evaluations)
        if not (isinstance(each, dict) and all(fits(each.get(key), hint) for key, hint in hints.items()))
    }
    wrong |= {f"repeats.{key}": values for key, values in record.repeats.items() if not values}
    wrong |= {"outcome": record.outcome} if record.outcome not in OUTCOMES else {}
    if not wrong:  # no number is too large
        float(sum(map(abs, [record.device_seconds, *record.metrics.values(), *chain(*record.repeats.values())])))
    return wrong


def misfits(made: Any) -> dict[str, Any]:
    """What of a provenance is missing or of another type than it should be, by name."""
    if not isinstance(made, dict):
        return {"": made}
    missing = {key: "missing" for key in PROVENANCE if key not in made}
    hints = {key: hint for key, hint in (PROVENANCE | BOUND).items() if key in made}
    wrong = missing | {key: made[key] for key, hint in hints.items() if not fits(made[key], hint)}
    wrong |= {} if "seconds" in wrong or 0 <= made["seconds"] < LONGEST_S else {"seconds": made["seconds"]}
    without = "packages" not in wrong and not {"torch", "numpy", "scikit-image"} <= {*made["packages"]}
    return wrong | ({"packages": made["packages"]} if without else {})


def _checksum(tree: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()

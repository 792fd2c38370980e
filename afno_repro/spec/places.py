"""Where specs, results and runs lie, and the specs that a name on the command line means."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from afno_repro.errors import ConfigError, Problem
from afno_repro.files import read_regular
from afno_repro.options import suggest
from afno_repro.spec.reader import read_spec
from afno_repro.spec.spec import SCALES, Spec
from afno_repro.spec.tree import MAX_BYTES


@dataclass(frozen=True)
class Places:
    """Where specs, results and runs lie: in the current folder unless the command line says otherwise."""

    root: Path
    runs: Path

    @property
    def experiments(self) -> Path:
        return self.root / "experiments"

    def results(self, scale: str, changed: bool = False) -> Path:
        """The folder of a scale's tables; smoke tables and changed ones never mix with the reproduction's."""
        return self.runs / "smoke" if scale == "smoke" else self.root / "results" / ("custom" if changed else scale)

    def spec_names(self) -> list[str]:
        """The names of all specs."""
        found = self.experiments.glob("*.yaml")
        return sorted(path.stem for path in found if not path.name.startswith("."))  # editors' files are hidden

    def group(self, name: str) -> list[str]:
        """The names of the specs of a group, like ablation; none where there is no such group."""
        named = re.compile(rf"^group:\s*{re.escape(name)}\s*$", re.MULTILINE)
        return [each for each in self.spec_names() if named.search(_text(self.experiments / f"{each}.yaml"))]

    def spec_path(self, name: str) -> Path:
        """A spec's file, from a name like `table2` or a path; raises ConfigError with the names there are."""
        path = Path(name) if name.endswith((".yaml", ".yml")) else self.experiments / f"{name}.yaml"
        if not os.path.isfile(path):  # unlike Path.is_file false for a name that no file can have
            names = self.spec_names()
            hint = (
                suggest(name, [*names, "all"], "specs")
                if names
                else f"there is no folder {self.experiments} with specs; run in a checkout or give --root"
            )
            raise ConfigError(Problem(f"there is no spec {name!r}", (), hint))
        return path


def load_specs(places: Places, name: str) -> list[tuple[Spec | None, list[Problem]]]:
    """The specs of a name, a path, a group or `all`, each with its mistakes."""
    names = places.spec_names() if name == "all" else places.group(name) or [name]
    if not names:
        raise ConfigError(
            Problem(f"there are no specs in {places.experiments}", (), "run in a checkout or give --root")
        )
    return [read_spec(path := places.spec_path(each), _label(path, places), places.root) for each in names]


def _text(path: Path) -> str:
    """A spec's text; none where it cannot be read, which is told when the spec is."""
    try:
        return read_regular(path, MAX_BYTES).decode(errors="replace")
    except OSError:
        return ""


def _label(path: Path, places: Places) -> str:
    return str(path.relative_to(places.root)) if path.is_relative_to(places.root) else str(path)


def sound_specs(places: Places, name: str) -> list[Spec]:
    """The specs of a name; raises one ConfigError with every mistake in their structure."""
    loaded = load_specs(places, name)
    problems = [problem for _, found in loaded for problem in found]
    if problems:
        raise ConfigError(*problems)
    return [spec for spec, _ in loaded if spec is not None]


def at_scale(specs: list[Spec], scale: str) -> list[Spec]:
    """Of several specs those that have the scale; a single one stays, so that its plan can say what is wrong."""
    return specs if len(specs) == 1 else [spec for spec in specs if scale in spec.structure.scales]


def scales_with_records(places: Places) -> list[str]:
    """The scales that have records to build tables from."""
    return [scale for scale in SCALES if (places.results(scale) / "records").is_dir()]


def asked_scales(asked: str | None) -> list[str]:
    """The scale asked for, or all; raises ConfigError for one that does not exist."""
    if asked is not None and asked not in SCALES:
        raise ConfigError(Problem(f"there is no scale {asked!r}", (), suggest(asked, SCALES, "scales")))
    return list(SCALES) if asked is None else [asked]

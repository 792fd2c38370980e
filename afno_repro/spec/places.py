"""Where specs, results and runs lie, and the specs that a name on the command line means.

Specs and reference results are those of the current folder, and beside them those that ship with the package.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from afno_repro.errors import ConfigError, Problem
from afno_repro.files import read_regular
from afno_repro.options import suggest
from afno_repro.spec.reader import read_spec
from afno_repro.spec.spec import SCALES, Spec
from afno_repro.spec.tree import MAX_BYTES

PACKAGE = Path(__file__).resolve().parents[1]
SHIPPED = PACKAGE / "shipped" if (PACKAGE / "shipped").is_dir() else PACKAGE.parent  # a wheel's copy, or the checkout

GROUP = re.compile(r"^group:[ \t]*(\S+)[ \t]*$", re.MULTILINE)


@dataclass(frozen=True)
class Places:
    """Where specs, results and runs lie: in the current folder unless the command line says otherwise.

    `as_reference` puts results where the committed ones lie.
    """

    root: Path
    runs: Path
    as_reference: bool = False

    @property
    def experiments(self) -> Path:
        return self.root / "experiments"

    @property
    def tables(self) -> Path:
        """The folder of all scales' results."""
        return self.root / ("results/reference" if self.as_reference else "results")

    @property
    def reference(self) -> "Places":
        """Where the committed results lie with their specs: in the root, else in the package."""
        here = replace(self, as_reference=True)
        return here if here.tables.is_dir() else replace(here, root=SHIPPED)

    def results(self, scale: str, changed: bool = False) -> Path:
        """The folder of a scale's tables; smoke tables and changed ones never mix with the reproduction's."""
        if scale == "smoke" and not self.as_reference:
            return self.runs / ("smoke/custom" if changed else "smoke")
        return self.tables / ("custom" if changed else "") / scale

    def spec_names(self) -> list[str]:
        """The names of the root's specs, or of those that ship where it has none: what `all` means."""
        return _names(self.experiments) or _names(SHIPPED / "experiments")

    def known_names(self) -> list[str]:
        """The names of all specs that can be named: the root's and those that ship."""
        return sorted({*_names(self.experiments), *_names(SHIPPED / "experiments")})

    def groups(self) -> dict[str, list[str]]:
        """The names of the specs of each group, like ablation."""
        found: dict[str, list[str]] = {}
        for name in self.spec_names():
            for group in GROUP.findall(_text(self._file(name)))[:1]:
                found.setdefault(group, []).append(name)
        return found

    def spec_path(self, name: str) -> Path:
        """A spec's file, from a name like `table2` or a path; raises ConfigError with the names there are."""
        path = Path(name) if name.endswith((".yaml", ".yml")) else self._file(name)
        if not os.path.isfile(path):  # unlike Path.is_file false for a name that no file can have
            hint = suggest(name, [*self.known_names(), "all"], "specs")
            raise ConfigError(Problem(f"there is no spec {name!r}", (), hint))
        return path

    def _file(self, name: str) -> Path:
        """Where the spec of a name would lie: the root's comes first."""
        own, shipped = (folder / f"{name}.yaml" for folder in (self.experiments, SHIPPED / "experiments"))
        return shipped if os.path.isfile(shipped) and not os.path.isfile(own) else own


def load_specs(places: Places, name: str) -> list[tuple[Spec | None, list[Problem]]]:
    """The specs of a name, a path, a group or `all`, each with its mistakes."""
    names = places.spec_names() if name == "all" else places.groups().get(name, [name])
    if not names:
        raise ConfigError(
            Problem(f"there are no specs in {places.experiments}", (), "run in a checkout or give --root")
        )
    return [read_spec(path := places.spec_path(each), _label(path, places), places.root) for each in names]


def _names(folder: Path) -> list[str]:
    """The names of a folder's specs."""
    return sorted(path.stem for path in folder.glob("*.yaml") if not path.name.startswith("."))  # editors' are hidden


def _text(path: Path) -> str:
    """A spec's text; none where it cannot be read, which is told when the spec is."""
    try:
        return read_regular(path, MAX_BYTES).decode(errors="replace")
    except OSError:
        return ""


def _label(path: Path, places: Places) -> str:
    homes = [root for root in (places.root, SHIPPED) if path.is_relative_to(root)]
    return str(path.relative_to(homes[0]) if homes else path)


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


def scales_with_records(places: Places, names: Sequence[str] = ("",)) -> list[str]:
    """The scales that have records to build tables from, of any spec or of some."""
    folders = {scale: places.results(scale) / "records" for scale in SCALES}
    return [scale for scale, folder in folders.items() if any((folder / name).is_dir() for name in names)]


def asked_scales(asked: str | None) -> list[str]:
    """The scale asked for, or all; raises ConfigError for one that does not exist."""
    if asked is not None and asked not in SCALES:
        raise ConfigError(Problem(f"there is no scale {asked!r}", (), suggest(asked, SCALES, "scales")))
    return list(SCALES) if asked is None else [asked]

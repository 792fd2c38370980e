"""What a shell completes: the names of specs, of a spec's rows and of scales. A spec with mistakes offers nothing."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from afno_repro.errors import AfnoError

if TYPE_CHECKING:
    from afno_repro.spec.places import Places

LINES = ("COMP_WORDS", "_TYPER_COMPLETE_ARGS")  # where a shell hands over the line: bash, and the others


def spec_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Specs that can be named here, their groups, and all of them."""
    return _beginning(incomplete, _specs(_places(ctx)))


def row_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """The rows of the spec that the line names, which is looked for in its words: an unfinished option hides it."""
    from afno_repro.spec.places import load_specs

    places = _places(ctx)
    known = _specs(places)
    words = " ".join(os.environ.get(name, "") for name in LINES).split()
    try:
        specs = [spec for word in words if word in known or word.endswith(".yaml") for spec in load_specs(places, word)]
    except (AfnoError, OSError):
        return []
    return _beginning(incomplete, [row.key for spec, _ in specs if spec is not None for row in spec.rows])


def scale_names(incomplete: str) -> list[str]:
    """The scales."""
    from afno_repro.spec.spec import SCALES

    return _beginning(incomplete, list(SCALES))


def _places(ctx: typer.Context) -> "Places":
    from afno_repro.spec.places import Places

    root = ctx.params.get("root") or Path()
    return Places(root, root / "runs")


def _specs(places: "Places") -> list[str]:
    return [*places.known_names(), *places.groups(), "all"]


def _beginning(incomplete: str, names: list[str]) -> list[str]:
    """Names that begin so, each once."""
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]

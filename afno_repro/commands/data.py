"""`afno data`: which data sets are there, what is wrong with their files, and how to get those that are absent."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from afno_repro.commands import arguments as given
from afno_repro.commands.answer import Answer, tell
from afno_repro.commands.arguments import HERE

if TYPE_CHECKING:
    from afno_repro.data.catalog import Survey

WIDTH = 80
ABOUT = ("purpose", "layout", "origin", "licence", "source")
COPIES = "A copy that was resized or encoded anew is other data: runs know the content that they were made from."


def data_sets(
    root: given.Root = HERE,
    data: given.Data = None,
    check: Annotated[bool, typer.Option("--check", help="Open every file and name those that cannot be used.")] = False,
    json: given.Json = False,
) -> None:
    """List every data set: found or not, and how to get it. Also where it was looked for."""
    from afno_repro.commands.terminal import show_for

    with show_for(quiet=False):
        answer = surveyed(data or root / "data", check)
    tell(answer, json)
    raise typer.Exit(3 if problem_count(answer.value) else 0)


def surveyed(root: Path, check: bool) -> Answer:
    """Every data set the project knows; with `check`, every file of those that are there is opened."""
    from afno_repro.commands.terminal import print_grid, say
    from afno_repro.data.catalog import survey

    value = [_entry(each, *(_looked_into(each, root) if check else (None, None))) for each in survey(root)]

    def show() -> None:
        lines = [
            [
                e["name"],
                "yes" if e["found"] else "no",
                _counts(e["images"]),
                str(e["classes"] or ""),
                _below(e["where"], root) if e["found"] else "",
            ]
            for e in value
        ]
        print_grid(f"Data sets below {root}", ["name", "found", "images", "classes", "where"], lines, whole=1)
        say(*_notes(value), *_about(value))
        if check:
            say(f"problems in all: {problem_count(value)}")

    return Answer(value, show)


def problem_count(value: list[dict[str, Any]]) -> int:
    """How many problems a check found, over all data sets."""
    return sum(entry["problems"]["count"] for entry in value if entry["problems"])


def _looked_into(found: "Survey", root: Path) -> list[dict[str, Any]]:
    """The problems of a data set, and its files that are not used."""
    from afno_repro.data.catalog import counted, left_out, offenders

    return [counted(look(found.name, root) if found.found else iter(())) for look in (offenders, left_out)]


def _entry(found: "Survey", problems: dict[str, Any] | None, left_out: dict[str, Any] | None) -> dict[str, Any]:
    entry = found.entry
    about = {key: getattr(entry, key) for key in ABOUT}
    here = {
        "name": found.name,
        "found": found.found,
        "where": found.where,
        "images": found.images,
        "classes": found.classes,
        "reason": found.reason,
    }
    return {**here, **about, "problems": problems, "left_out": left_out}


def _counts(images: dict[str, int]) -> str:
    return ", ".join(f"{count} {split}" for split, count in images.items())


def _below(where: str, root: Path) -> str:
    return str(Path(where).relative_to(root)) if Path(where).is_relative_to(root) else where


def _notes(value: list[dict[str, Any]]) -> list[str]:
    """What the sets that are there lack, the first of their problems, and of the files that are left out."""
    lines = []
    for entry in value:
        if entry["found"] and entry["reason"]:
            lines += _wrapped(f"{entry['name']}: {entry['reason']}", indent=0)
        for title, kind in (("problems", "problems"), ("files that are not used", "left_out")):
            if entry[kind] and entry[kind]["count"]:
                count, first = entry[kind]["count"], entry[kind]["first"]
                lines += [f"{entry['name']}: {title}: {count}", *(line for each in first for line in _wrapped(each))]
                lines += [f"  ... and {count - len(first)} more"] if count > len(first) else []
    return lines


def _about(value: list[dict[str, Any]]) -> list[str]:
    """Each set's origin and licence and how to get it; of one that is absent also its use and layout.

    The parts of a set are told together.
    """
    lines, told = [], set()
    for entry in value:
        if not entry["found"]:
            lines += _wrapped(f"{entry['name']}: {entry['reason']}", indent=0)
        keys = ABOUT[2:] if entry["found"] else ABOUT
        about = tuple(entry[key] for key in keys)
        if about not in told:
            lines += _wrapped(f"{entry['name']}:", indent=0) if entry["found"] else []
            lines += [line for key in keys for line in _wrapped(f"{key}: {entry[key]}")]
        told |= {about, about[2:]}
    return [*lines, *_wrapped(COPIES, indent=0)]


def _wrapped(text: str, indent: int = 2) -> list[str]:
    """Lines of at most WIDTH characters; a path or pattern is never cut."""
    return textwrap.wrap(
        " ".join(text.split()),
        WIDTH,
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + 2),
        break_long_words=False,
        break_on_hyphens=False,
    )

"""`afno doctor`: the environment, looked at: what is installed, what the machine has, which folders can be written."""

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from afno_repro.commands import arguments as given
from afno_repro.commands.answer import Answer, tell
from afno_repro.commands.arguments import HERE
from afno_repro.errors import StorageError
from afno_repro.files import check_lock, check_writable

if TYPE_CHECKING:
    from afno_repro.spec.places import Places


def doctor(root: given.Root = HERE, data: given.Data = None, runs: given.Runs = None, json: given.Json = False) -> None:
    """Look at the environment: packages, device, memory, folders."""
    from afno_repro.commands.terminal import show_for

    with show_for(quiet=False):
        answer = examine(given.places(root, runs), data)
    tell(answer, json)
    raise typer.Exit(0 if answer.value["healthy"] else 3)


def examine(places: "Places", data: Path | None) -> Answer:
    """Everything that a run needs, each with ok or what to do about it."""
    from afno_repro.commands.terminal import print_grid

    lines = [_line("python", platform.python_version()), *_packages(), *_device(places), *_folders(places, data)]
    healthy = all(line["ok"] for line in lines)

    def show() -> None:
        print_grid(
            "Environment",
            ["what", "found", ""],
            [[line["what"], line["found"], "" if line["ok"] else "!"] for line in lines],
        )
        print("everything a run needs is here" if healthy else "lines with ! need mending before a run")

    return Answer({"healthy": healthy, "lines": lines}, show)


def _line(what: str, found: str, ok: bool = True) -> dict[str, Any]:
    return {"what": what, "found": found, "ok": ok}


def _packages() -> list[dict[str, Any]]:
    try:
        needed = [text for text in requires("afno_repro") or [] if "extra ==" not in text]
    except PackageNotFoundError:
        return [_line("packages", "afno_repro runs from a folder without being installed: what it needs is not known")]
    lines = []
    for text in needed:
        name = text.split(">=")[0].split(">")[0].strip()
        try:
            lines.append(_line(name, version(name)))
        except PackageNotFoundError:
            lines.append(_line(name, f"missing: pip install '{text}'", ok=False))
    return lines


def _device(places: "Places") -> list[dict[str, Any]]:
    from afno_repro.host import cores, memory_bytes
    from afno_repro.runs.provenance import device_name
    from afno_repro.runs.source import code_version

    memory = memory_bytes()
    commit = code_version()
    code = f"{commit.get('code', '')}: records name no commit"
    if commit["commit"]:
        code = f"commit {commit['commit'][:12]}{', with local changes' if commit['dirty'] else ''}"
    return [
        _line("processor", device_name("cpu")),
        _line("cores", str(cores())),
        _line("memory", f"{memory[1] / 2**30:.0f} GiB, {memory[0] / 2**30:.0f} GiB free" if memory else "unknown"),
        _line("device", _used(places)),
        _line("shared memory", _shared()),
        _line("code", code),
    ]


def _used(places: "Places") -> str:
    """What `afno run` would use."""
    from afno_repro.runs.devices import told, visible
    from afno_repro.runs.machine import Asked, find_machine

    asked = Asked(visible=os.environ.get(visible(os.environ), ""))
    return told(find_machine(asked, places.root / "data", places.runs))


def _shared() -> str:
    """What data-loading processes pass their batches through."""
    from afno_repro.data.loader import SHARED

    if not SHARED.is_dir():
        return "unknown"
    free = shutil.disk_usage(SHARED).free
    little = "; on a GPU use --workers 0 or give the container more, as in docker run --shm-size 8g"
    return f"{SHARED}, {free / 2**30:.1f} GiB free{little if free < 2**30 else ''}"


def _folders(places: "Places", data: Path | None) -> list[dict[str, Any]]:
    specs = places.spec_names()
    found = ", ".join(specs) if specs else "none: run in a checkout or give --root"
    lines = [_line("specs", found, ok=bool(specs))]
    for name, folder in (("results", places.tables), ("runs", places.runs)):
        try:
            check_writable(folder)
            check_lock(folder)
            free = f"{shutil.disk_usage(folder).free / 2**30:.0f} GiB free"
            lines.append(_line(name, f"{folder}, {free}; locks and flushed files hold between two processes"))
        except StorageError as error:
            lines.append(_line(name, str(error), ok=False))
    return [*lines, _data(places, data)]


def _data(places: "Places", asked: Path | None) -> dict[str, Any]:
    """The folder of data sets, which has to be there if somebody names it."""
    folder = asked or places.root / "data"
    if folder.is_dir():
        return _line("data", f"{folder}; afno data looks into it")
    return _line("data", f"{folder} is not there: the smoke and tiny scales need none", ok=asked is None)

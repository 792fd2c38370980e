"""`afno check`: a spec at every scale and the data of one, looked at without any work."""

from typing import TYPE_CHECKING, Any

from afno_repro.commands import arguments as given
from afno_repro.commands.answer import Answer, tell
from afno_repro.commands.arguments import HERE
from afno_repro.errors import ConfigError, DataError

if TYPE_CHECKING:
    from afno_repro.config import Machine
    from afno_repro.spec.places import Places


def check(
    spec: given.Spec,
    scale: given.Scale = "tiny",
    root: given.Root = HERE,
    data: given.Data = None,
    runs: given.Runs = None,
    json: given.Json = False,
    quiet: given.Quiet = False,
) -> None:
    """Check a spec at every scale, and the data of one. Each row's model is built without memory; no work is done."""
    from afno_repro.commands.terminal import show_for
    from afno_repro.runs.machine import Asked

    with show_for(quiet):
        answer = checked(given.places(root, runs), spec, scale, given.machine(Asked("cpu"), root, data, runs))
    if not quiet or json:
        tell(answer, json)


def checked(places: "Places", name: str, scale: str, machine: "Machine") -> Answer:
    """Every spec of a name at every scale, and the data of one; raises ConfigError, then DataError."""
    from afno_repro.commands.reproduce import prepare
    from afno_repro.commands.terminal import say
    from afno_repro.runs.check import check_runs, metric_problems
    from afno_repro.runs.show import Show
    from afno_repro.spec.places import load_specs
    from afno_repro.spec.plan import Choice, resolve_runs
    from afno_repro.spec.spec import SCALES
    from afno_repro.tables.numbers import counted

    loaded = load_specs(places, name)
    problems = [problem for _, found in loaded for problem in found]
    value: list[dict[str, Any]] = []
    for spec, _ in loaded:
        for each in SCALES:
            if spec is None or each not in spec.structure.scales:
                continue
            plan, found = resolve_runs(spec, each)
            found += check_runs(plan, plan.runs)
            found = found or metric_problems(plan)
            problems += [p for p in found if (p.place, p.message) not in {(q.place, q.message) for q in problems}]
            value.append({"table": spec.name, "scale": each, "runs": len(plan.runs)})
    if problems:
        raise ConfigError(*problems)
    for spec, _ in loaded:
        if spec is not None and scale in spec.structure.scales:
            absent = prepare(places, name, scale, Choice(), machine, Show()).absent
            if absent:
                raise DataError("\n".join(dict.fromkeys(absent.values())))

    def show() -> None:
        for entry in value:
            say(f"{entry['table']} at {entry['scale']} scale: sound, {counted(entry['runs'], 'run')}")

    return Answer(value, show)

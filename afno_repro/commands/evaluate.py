"""`afno evaluate`: metrics of finished runs, computed again from their weights; nothing is trained."""

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import typer

from afno_repro.commands import arguments as given
from afno_repro.commands.answer import Answer, tell
from afno_repro.commands.arguments import HERE

if TYPE_CHECKING:
    from afno_repro.config import Machine
    from afno_repro.runs.record import Record
    from afno_repro.runs.show import Show
    from afno_repro.spec.places import Places
    from afno_repro.spec.plan import Choice, Run


def evaluate(
    spec: given.Spec,
    scale: given.Scale = "tiny",
    row: given.Rows = None,
    seed: given.Seeds = None,
    seeds: given.AllSeeds = None,
    device: given.Device = "auto",
    update_reference: given.UpdateReference = False,
    root: given.Root = HERE,
    data: given.Data = None,
    runs: given.Runs = None,
    json: given.Json = False,
    quiet: given.Quiet = False,
) -> None:
    """Evaluate finished runs again from their weights. For a metric added later, or other validation images.

    Tables take from it what a training did not measure.
    """
    from afno_repro.commands.terminal import show_for
    from afno_repro.runs.devices import told
    from afno_repro.runs.machine import Asked
    from afno_repro.spec.plan import Choice

    places = given.places(root, runs, update_reference, scale)
    choice = Choice(given.chosen(row), given.chosen(seed), given.first_seeds(seeds), ("pretrain", "finetune"))
    with show_for(quiet) as show:
        machine = given.machine(Asked(device, jobs=1), root, data, runs, quiet)
        show.note(f"{spec} at {scale} scale {told(machine)}")
        answer = reevaluated(places, spec, scale, choice, machine, show)
    tell(answer, json)
    raise typer.Exit(4 if any(entry["state"] != "evaluated" for entry in answer.value) else 0)


def reevaluated(places: "Places", name: str, scale: str, choice: "Choice", machine: "Machine", show: "Show") -> Answer:
    """Evaluate what is finished, add that to the records, and write the tables anew."""
    from afno_repro.commands.reproduce import other_source
    from afno_repro.commands.terminal import say
    from afno_repro.runs.show import Place
    from afno_repro.runs.store import Store, publish, records_folder
    from afno_repro.spec.places import at_scale, sound_specs
    from afno_repro.spec.plan import plan_runs
    from afno_repro.tables.rebuild import rebuild

    store, folder = Store(machine.runs_root), places.results(scale)
    value: list[dict[str, Any]] = []
    specs = at_scale(sound_specs(places, name), scale)
    new: dict[str, Record | None] = {}
    elsewhere: list[Run] = []
    plans = {spec.name: plan_runs(spec, scale, choice).needs for spec in specs}
    show.plan([Place(r.digest, row, stage, "waiting") for p in plans.values() for (row, stage, _), r in p.items()])
    for spec in specs:
        for (row, stage, seed), run in plans[spec.name].items():
            if run.digest not in new:
                new[run.digest] = record = _watched(run, store, machine, show)
                if record and record.source != record.evaluations[-1]["source"]:
                    elsewhere.append(run)
            record = new[run.digest]
            found = {"table": spec.name, "row": row, "stage": stage, "seed": seed, "run": run.id}
            value.append({**found, "state": "not finished", "metrics": {}, "data": ""})
            if record is not None:
                newest = record.evaluations[-1]
                value[-1] |= {"state": "evaluated", "metrics": newest["metrics"], "data": newest["data"]}
                publish(records_folder(folder, spec.name), row, stage, seed, record, store.directory(run))
    rebuild(places, scale, choice, specs)
    if elsewhere:
        show.note(f"{other_source(elsewhere)}\n  what they measured themselves stays in the tables")

    def text() -> None:
        for entry in value:
            numbers = "".join(f"  {key} {number:.4g}" for key, number in entry["metrics"].items())
            say(f"{entry['table']} {entry['row']}/{entry['stage']} seed {entry['seed']}: {entry['state']}{numbers}")
        say(f"tables written anew in {folder}")
        if any(entry["state"] != "evaluated" for entry in value):
            say(f"afno run {name} --scale {scale} does what is not finished")

    return Answer(value, text)


def _watched(run: "Run", store: Any, machine: "Machine", show: "Show") -> "Record | None":
    """A run evaluated, while somebody watches."""
    began = time.monotonic()
    show.started(run)
    record = _evaluate(run, store, machine)
    outcome, metrics = ("ok", record.evaluations[-1]["metrics"]) if record is not None else ("left_out", {})
    show.finished(run, outcome, "" if record is not None else "not finished", time.monotonic() - began, metrics)
    return record


def _evaluate(run: "Run", store: Any, machine: "Machine") -> "Record | None":
    """A finished run's record with one more evaluation; None where the run did not end well."""
    record = store.record(run.digest)
    if record is None or record.outcome != "ok":
        return None
    from afno_repro.runs.executors import evaluated
    from afno_repro.runs.fit import fitted
    from afno_repro.runs.source import source_of

    with store.lock(run) as directory:
        metrics, of = evaluated(run.config, fitted(run.config, machine))
        source = source_of(run.config, machine.code["source"])
        fed = {"data": of.fingerprint, "images": list(of.images)}
        made = {"metrics": metrics, **fed, **machine.code, "source": source}
        record = replace(record, evaluations=(*record.evaluations, made))
        store.finish(record, directory)
    return record  # type: ignore[no-any-return]

"""What a run is bound to: other data, another checkpoint or another parent are named, never taken for its own."""

import json
import os
import shutil
import time
from dataclasses import replace

import pytest
import torch
from PIL import Image

from afno_repro.errors import Interrupted, StorageError
from afno_repro.runs import execute
from afno_repro.runs.store import Store
from afno_repro.spec.plan import plan_runs
from afno_repro.spec.reader import load_spec
from afno_repro.tables.table import build_table
from afno_repro.training import checkpoint
from tests.command import afno, answer
from tests.commands.test_commands import IMAGENET
from tests.data.test_samples import make_imagenet
from tests.machine import machine_at
from tests.specs import SMALL, write_spec
from tests.training.test_loop import FINETUNED

GFN = ("pretrain", "small", "--row", "gfn", "--device", "cpu")


@pytest.fixture
def two_sets(tmp_path):
    """Two folders of images that differ in one, of the same name and size in bytes."""
    write_spec(tmp_path, IMAGENET)
    make_imagenet(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    image = tmp_path / "b/imagenet/train/n00000000/0.JPEG"
    data = bytearray(image.read_bytes())
    end = data.rindex(b"\xff\xd9")
    data[end - 3] ^= 1  # somewhere in the last pixels
    image.write_bytes(data)
    Image.open(image).load()
    return tmp_path


def stop(step):
    """At an epoch's end, after some checkpoints."""
    if step.step % (step.total // 3) == 0:
        raise Interrupted(15)


def record_of(root, kind="pretrain-gfn"):
    (path,) = (root / "runs").glob(f"{kind}-*/record.json")
    return json.loads(path.read_text())


def test_a_record_counts_and_names_the_files_that_its_data_leave_out(two_sets):
    afno(*GFN, "--data", "a", root=two_sets)
    record = record_of(two_sets)["provenance"]
    assert (record["left_out"], record["first_left_out"]) == (0, [])
    afno("report", "--scale", "tiny", root=two_sets)
    report = two_sets / "results/tiny/report.md"
    assert "Files not used" not in report.read_text()
    folder = two_sets / "b/imagenet/train"
    strange = [folder / "n00000000/._0.JPEG", folder / "n00000000/notes.txt", folder / "Thumbs.db"]
    latin = os.fsencode(folder) + b"/caf\xe9.txt"
    for path in (*strange, latin):
        with open(path, "wb") as file:
            file.write(b"no image")
    afno(*GFN, "--data", "b", "--rerun", root=two_sets)
    record = record_of(two_sets)["provenance"]
    names = [str(path.relative_to(two_sets / "b")) for path in strange]
    assert record["left_out"] == 4
    assert sorted(record["first_left_out"]) == sorted([*names, "imagenet/train/caf?.txt"])
    (entry,) = answer("list", "--scale", "tiny", root=two_sets)
    assert entry["left_out"] == 4
    assert "that were not used (their records name the first): small tiny 4" in afno("list", root=two_sets).stdout
    afno("report", "--scale", "tiny", root=two_sets)
    assert "Files not used | 4 of imagenet: " in report.read_text()


def test_a_finished_run_met_with_other_data_is_refused_and_done_anew_only_where_asked(two_sets):
    afno(*GFN, "--data", "a", root=two_sets)
    before = record_of(two_sets)
    err = afno(*GFN, "--data", "b", root=two_sets, expect=2).stderr
    assert "training images, 8 then, 8 now" in err
    assert before["provenance"]["data"] in err
    assert "--rerun" in err
    assert record_of(two_sets) == before
    assert afno(*GFN, "--data", "a", root=two_sets).stderr == ""  # its own data: done
    afno(*GFN, "--data", "b", "--runs", "others", root=two_sets)
    afno(*GFN, "--data", "b", "--rerun", root=two_sets)
    assert record_of(two_sets)["provenance"]["data"] != before["provenance"]["data"]
    assert "started" not in afno(*GFN, "--data", "b", "--rerun", root=two_sets).stderr  # once is enough


def test_a_half_done_run_goes_on_with_its_own_data_alone(two_sets):
    run = plan_runs(load_spec(two_sets / "experiments/small.yaml"), "tiny").needs["gfn", "pretrain", 0]

    with pytest.raises(Interrupted):
        execute.run_one(run, machine_at(two_sets, data_root=two_sets / "a", checkpoint_every_s=0.0), stop)
    for image in (two_sets / "b/imagenet/train").rglob("[12].JPEG"):
        image.unlink()
    err = afno(*GFN, "--data", "b", root=two_sets, expect=2).stderr
    assert "training images, 8 then, 4 now" in err
    with pytest.raises(StorageError, match="not a checkpoint of this run: data"):
        execute.run_one(run, machine_at(two_sets, data_root=two_sets / "b"), lambda step: None)
    afno(*GFN, "--data", "a", root=two_sets)
    assert record_of(two_sets)["outcome"] == "ok"


def test_rows_that_saw_other_data_are_marked_and_no_claim_is_decided_on_them(two_sets):
    afno(*GFN, "--data", "a", root=two_sets)
    afno("pretrain", "small", "--row", "afno", "--device", "cpu", "--data", "b", root=two_sets)
    table = build_table(load_spec(two_sets / "experiments/small.yaml"), "tiny", two_sets / "results/tiny/records/small")
    assert {table.cells[row, "psnr"].mark for row in ("gfn", "afno", "fill_mean")} == {"other data", ""}
    shown = (two_sets / "results/tiny/small.md").read_text()
    assert shown.count("(other data)") == 2
    assert "saw other data" in shown
    assert "undecided" in (two_sets / "results/tiny/claims.csv").read_text()


def test_another_run_s_checkpoint_is_refused_with_what_differs(tmp_path):
    write_spec(tmp_path, SMALL.replace("tiny: {seeds: [0]}", "tiny: {seeds: [0, 1]}"))
    needs = plan_runs(load_spec(tmp_path / "experiments/small.yaml"), "tiny").needs
    runs = [needs["gfn", "pretrain", seed] for seed in (0, 1)]

    for run in runs:
        with pytest.raises(Interrupted):
            execute.run_one(run, machine_at(tmp_path, checkpoint_every_s=0.0), stop)
    ours, theirs = (Store(tmp_path / "runs").directory(run) / "checkpoints" for run in runs)
    shutil.rmtree(ours)
    shutil.copytree(theirs, ours)
    with pytest.raises(StorageError, match=f"digest {runs[1].digest}, now {runs[0].digest}"):
        execute.run_one(runs[0], machine_at(tmp_path), lambda step: None)


def test_a_run_whose_parent_was_trained_anew_is_not_finished(tmp_path):
    write_spec(tmp_path, FINETUNED)
    needs = plan_runs(load_spec(tmp_path / "experiments/small.yaml"), "tiny").needs
    parent, child = needs["gfn", "pretrain", 0], needs["gfn", "finetune", 0]
    machine, store = machine_at(tmp_path), Store(tmp_path / "runs")
    first = execute.run_one(parent, machine, lambda step: None)
    execute.run_one(child, machine, lambda step: None)
    assert store.finished(child, machine) is not None
    other = replace(first, provenance={**first.provenance, "weights": "0" * 64})
    with store.lock(parent) as directory:
        store.finish(other, directory)
    assert store.finished(child, machine) is None
    with store.lock(parent) as directory:
        store.finish(first, directory)
    assert store.finished(child, machine) is not None


def test_what_did_not_end_well_keeps_its_checkpoints_and_goes_on_with_other_means(tmp_path, monkeypatch):
    write_spec(tmp_path)
    run = plan_runs(load_spec(tmp_path / "experiments/small.yaml"), "tiny").needs["gfn", "pretrain", 0]
    store, steps = Store(tmp_path / "runs"), []

    def greedy(step):
        steps.append(step.step)
        if step.step >= 6:
            raise MemoryError

    assert execute.run_one(run, machine_at(tmp_path, checkpoint_every_s=0.0), greedy).outcome == "out_of_memory"
    kept = checkpoint.saved(store.directory(run) / "checkpoints")
    assert kept
    assert store.finished(run, machine_at(tmp_path)) is not None  # with the same means it would end the same
    less = machine_at(tmp_path, micro_batch=1)
    assert store.finished(run, less) is None
    steps.clear()
    assert execute.run_one(run, less, lambda step: steps.append(step.step)).outcome == "ok"
    assert min(steps) >= 6  # it went on, and said so
    assert not (store.directory(run) / "checkpoints").exists()


def test_of_two_folders_of_one_run_the_finished_one_counts_and_an_error_is_no_absence(tmp_path):
    write_spec(tmp_path)
    afno(*GFN, root=tmp_path)
    (finished,) = (tmp_path / "runs").glob("pretrain-gfn-*")
    digest = finished.name.rpartition("-")[2]
    (tmp_path / f"runs/pretrain-another-{digest}").mkdir()
    store = Store(tmp_path / "runs")
    assert store.find(digest) == finished
    (finished / "record.json").unlink()
    (finished / "record.json").mkdir()  # cannot be read, whoever asks
    with pytest.raises(StorageError, match=r"record\.json"):
        store.record(digest)


def test_finished_runs_of_other_source_are_named_and_done_again_where_asked(tmp_path):
    write_spec(tmp_path)
    afno(*GFN, root=tmp_path)
    store = Store(tmp_path / "runs")
    run = plan_runs(load_spec(tmp_path / "experiments/small.yaml"), "tiny").needs["gfn", "pretrain", 0]
    record = store.record(run.digest)
    with store.lock(run) as directory:
        store.finish(replace(record, provenance={**record.provenance, "source": "0" * 16}), directory)
    done = afno(*GFN, root=tmp_path)
    assert "made by other source than today's" in done.stderr
    assert run.id in done.stderr
    listed = answer("list", "--scale", "tiny", root=tmp_path)
    assert [entry["other_source"] for entry in listed] == [1]
    afno(*GFN, "--rerun", root=tmp_path)
    assert store.record(run.digest).provenance["source"] == record.provenance["source"]
    assert store.record(run.digest).metrics == record.metrics


def test_a_training_that_other_source_continues_is_told_and_known_to_its_record(tmp_path):
    """Another machine does the second half, too."""
    write_spec(tmp_path)
    run = plan_runs(load_spec(tmp_path / "experiments/small.yaml"), "tiny").needs["gfn", "pretrain", 0]
    code = {"commit": "a" * 40, "dirty": False, "source": "0" * 16}
    began = time.monotonic()
    for _ in range(2):  # two commands of the same source and machine are one stretch
        with pytest.raises(Interrupted):
            execute.run_one(run, machine_at(tmp_path, checkpoint_every_s=0.0, code=code, micro_batch=2), stop)
    took = time.monotonic() - began
    shutil.copytree(tmp_path, tmp_path / "anew")
    done = afno(*GFN, root=tmp_path)
    assert f"made by other source than today's, afno run --rerun does them again: {run.id}" in done.stderr
    record = Store(tmp_path / "runs").record(run.digest)
    (before,) = record.provenance["before"]
    assert (before["source"], before["commit"], before["micro_batch"]) == ("0" * 16, "a" * 40, 2)
    assert record.provenance["source"] not in (before["source"], None)
    assert 0 < before["seconds"] < took + 0.1
    page = (tmp_path / "results/tiny/small.md").read_text()
    assert f"continued by other source: gfn/pretrain seed 0 ({'0' * 16}, then " in page
    (commits,) = (line for line in page.splitlines() if line.startswith("- Commit: "))
    assert "a" * 12 in commits
    assert "**The records mix them.**" in commits
    assert [entry["other_source"] for entry in answer("list", "--scale", "tiny", root=tmp_path)] == [1]
    assert "made by other source" in afno(*GFN, root=tmp_path).stderr
    afno(*GFN, "--rerun", root=tmp_path / "anew")
    assert Store(tmp_path / "anew/runs").record(run.digest).provenance["before"] == []


def test_what_another_command_holds_costs_a_rerun_nothing_of_what_is_finished(tmp_path):
    """A half-done run whose checkpoint does not say by what source is one of other source."""
    write_spec(tmp_path)
    needs = plan_runs(load_spec(tmp_path / "experiments/small.yaml"), "tiny").needs
    done, half = needs["afno", "pretrain", 0], needs["gfn", "pretrain", 0]
    store, machine = Store(tmp_path / "runs"), machine_at(tmp_path, checkpoint_every_s=0.0)
    execute.run_one(done, machine, lambda step: None)
    with pytest.raises(Interrupted):
        execute.run_one(half, machine, stop)
    for path in checkpoint.saved(store.directory(half) / "checkpoints"):
        state = torch.load(path / "state.pt", weights_only=True)
        del state["made"]
        checkpoint.save(path.parent, int(path.name[5:]), state, {"bound": state["bound"]})
    pretrain = ("pretrain", "small", "--row", "gfn", "--row", "afno", "--device", "cpu")
    with store.lock(half):
        assert "is held by process" in afno(*pretrain, "--rerun", root=tmp_path, expect=6).stderr
    assert store.record(done.digest)
    assert f"made by other source than today's, afno run --rerun does them again: {done.id}, {half.id}" in (
        afno(*pretrain, root=tmp_path).stderr
    )


def test_an_evaluation_adds_what_a_record_lacks_and_other_images_reach_no_table(two_sets):
    afno(*GFN, "--data", "a", root=two_sets)
    store = Store(two_sets / "runs")
    run = plan_runs(load_spec(two_sets / "experiments/small.yaml"), "tiny").needs["gfn", "pretrain", 0]
    whole = store.record(run.digest)
    less = {key: value for key, value in whole.metrics.items() if key != "psnr"}
    with store.lock(run) as directory:
        store.finish(replace(whole, metrics=less), directory)
    evaluate = ("evaluate", "small", "--row", "gfn", "--device", "cpu")
    told = answer(*evaluate, "--data", "a", root=two_sets)
    assert told[0]["metrics"]["psnr"] == pytest.approx(whole.metrics["psnr"], rel=1e-6)
    table = build_table(load_spec(two_sets / "experiments/small.yaml"), "tiny", two_sets / "results/tiny/records/small")
    assert table.cells["gfn", "psnr"].value == pytest.approx(whole.metrics["psnr"], rel=1e-6)
    Image.new("RGB", (50, 40), "red").save(two_sets / "b/imagenet/val/n00000000/0.JPEG")
    other = answer(*evaluate, "--data", "b", root=two_sets)
    assert other[0]["metrics"]["psnr"] != told[0]["metrics"]["psnr"]
    record = store.record(run.digest)
    assert len(record.evaluations) == 2
    assert record.scores["psnr"] == told[0]["metrics"]["psnr"]
    left = afno("evaluate", "small", "--row", "afno", "--device", "cpu", root=two_sets, expect=4).stdout
    assert "small afno/pretrain seed 0: not finished\n" in left
    assert "tables written anew in results/tiny\n" in left
    assert "afno run small --scale tiny does what is not finished" in left

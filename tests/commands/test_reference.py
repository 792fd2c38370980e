"""What ships and what is a user's own: two folders, told apart in tables, report and list; specs that ship."""

import os
import re
import subprocess

import pytest

from afno_repro.spec.places import Places
from tests.command import afno, answer
from tests.commands.test_commands import hashes
from tests.specs import ROOT, SMALL, write_spec

COUNTS = ("profile", "small", "--no-latency", "--device", "cpu")  # two runs of the five


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """A root whose reference has the counts of the small spec."""
    root = tmp_path_factory.mktemp("counted")
    write_spec(root)
    afno(*COUNTS, "--update-reference", root=root)
    return root


def test_what_a_user_computes_stands_beside_the_reference_and_never_in_its_place(counted):
    before = hashes(counted / "results")
    assert {name.split("/")[0] for name in before} == {"reference"}
    afno(*COUNTS, root=counted)
    afno("report", "--scale", "tiny", root=counted)
    own = {name: found for name, found in hashes(counted / "results").items() if name not in before}
    assert {"tiny/small.md", "tiny/small.csv", "tiny/report.md", "tiny/report.html", "costs.md"} <= {*own}
    assert {name: hashes(counted / "results")[name] for name in before} == before
    for name in ("small.md", "report.md"):
        mine, reference = (counted / "results/tiny" / name).read_text().split("\n## Reference\n")
        assert "0.0" in mine
        assert re.search(r"\| ViT \| GFN .*\| 0\.0\d+ \|", reference)
        assert "Nothing of this part was computed here." in reference
        assert "Nothing of this part" not in (counted / "results/reference/tiny" / name).read_text()
    assert "Reference: Small" in (counted / "results/tiny/report.html").read_text()


def test_report_rebuilds_the_reference_only_where_it_is_asked_to(counted):
    page = counted / "results/reference/tiny/small.md"
    before = page.read_text()
    page.write_text("spoilt")
    afno("report", "--scale", "tiny", root=counted)
    assert page.read_text() == "spoilt"
    afno("report", "--update-reference", root=counted)
    assert page.read_text() == before


@pytest.mark.parametrize("more", [("--scale", "smoke"), ("--set", "pretrain.train.epochs=1")], ids=" ".join)
def test_no_reference_is_made_of_smoke_or_changed_tables(counted, more):
    assert "--update-reference" in afno(*COUNTS, *more, "--update-reference", root=counted, expect=2).stderr


def test_list_tells_reference_yours_missing_and_what_run_would_do(counted, tmp_path):
    write_spec(tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / "results/reference").symlink_to(counted / "results/reference")

    def numbers():
        entry = answer("list", "--scale", "tiny", root=tmp_path)[0]
        plan = answer("run", "small", "--dry-run", root=tmp_path)[:-1]
        assert entry["to_do"] == sum(run["state"] != "done" for run in plan)
        return [entry[key] for key in ("runs", "reference", "yours", "missing_runs", "to_do")]

    assert numbers() == [5, 2, 0, 3, 5]
    afno("profile", "small", "--row", "gfn", "--no-latency", "--device", "cpu", root=tmp_path)
    assert numbers() == [5, 2, 1, 3, 4]
    shown = {(e["row"], e["stage"]): e for e in answer("list", "small", root=tmp_path)}
    told = {need: (e["reference"], e["yours"], e["to_do"]) for need, e in shown.items()}
    assert told["gfn", "cost"] == (True, True, False)
    assert told["afno", "cost"] == (True, False, True)
    assert told["afno", "pretrain"] == (False, False, True)
    lines = [line.split() for line in afno("list", "small", root=tmp_path).stdout.splitlines()]
    assert ["gfn", "cost", "0", "yes", "yes", "done"] in lines
    assert ["fill_mean", "pretrain", "0", "to", "do"] in lines


def test_list_names_the_folder_of_a_scale_and_the_command_that_shows_its_runs(counted):
    for scale, folder in (("smoke", "runs/smoke"), ("tiny", "results/tiny")):
        said = afno("list", "--scale", scale, root=counted).stdout
        assert f"yours: in {folder}\n" in said
        assert f"afno list table2 --scale {scale} shows" in said
    said = afno("list", root=counted).stdout
    assert "yours: in results, those of smoke scale in runs/smoke\n" in said
    assert "afno list table2 shows" in said


def test_list_fits_one_screen_in_a_clone(tmp_path):
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    lines = afno("list", root=tmp_path, env={**os.environ, "COLUMNS": "80"}).stdout.splitlines()
    assert len(lines) <= 30
    assert all(len(line.rstrip()) <= 80 for line in lines if re.match(r"(table|fig)\d", line))


def test_specs_of_the_folder_come_first_and_those_that_ship_can_be_named(tmp_path):
    places = Places(tmp_path, tmp_path / "runs")
    shipped = Places(ROOT, tmp_path / "runs").spec_names()
    assert places.spec_names() == shipped
    assert "sound" in afno("check", "table1", root=tmp_path).stdout
    path = write_spec(tmp_path, SMALL, "table1")
    assert places.spec_path("table1") == path
    assert places.spec_path("table2") == ROOT / "experiments/table2.yaml"
    assert (places.spec_names(), places.known_names()) == (["table1"], shipped)


def test_init_copies_the_specs_that_ship_and_keeps_what_is_there(tmp_path):
    mine = write_spec(tmp_path / "mine", SMALL, "table1")
    found = answer("init", "mine", root=tmp_path)
    assert found["kept"] == ["mine/experiments/table1.yaml"]
    assert mine.read_text() == SMALL
    for path in (ROOT / "experiments").glob("*.yaml"):
        if path.name != mine.name:
            assert (mine.parent / path.name).read_bytes() == path.read_bytes()


def test_git_ignores_what_a_user_computes_and_keeps_the_reference():
    def ignored(path):
        return subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT).returncode == 0

    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    own = ["results/tiny/table2.md", "results/small/records/table2/x.json", "results/custom/x", "results/costs.md"]
    given = ["data/imagenet/train/x.JPEG", "weights.safetensors", "model.onnx"]  # where docs/ puts them
    assert all(map(ignored, [*own, *given, "runs/smoke/x"]))
    assert not any(map(ignored, ["results/reference/tiny/table2.md", "results/reference/costs.md"]))

"""The commands as a user runs them: what they print, write and return."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import afno_repro
from afno_repro import cli
from afno_repro.runs.store import Store
from afno_repro.spec.plan import plan_runs
from afno_repro.spec.reader import load_spec
from tests.command import afno, answer
from tests.specs import ROOT, SMALL, write_spec

SMOKE = ("run", "small", "--scale", "smoke", "--device", "cpu", "--jobs", "1")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A root in which the small spec was run at smoke scale."""
    root = tmp_path_factory.mktemp("done")
    write_spec(root)
    afno(*SMOKE, root=root)
    return root


def hashes(folder: Path) -> dict[str, str]:
    """Of all files but locks and what is remembered of others that were read."""
    files = (
        path for path in folder.rglob("*") if path.is_file() and path.parent.name != "contents" and path.name != ".lock"
    )
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def drawings(folder: Path) -> dict[str, str]:
    """SVGs with numbers to a hundredth of a point and without names made of them: the last digits are the CPU's."""
    texts = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*.svg")}
    nameless = {name: re.sub(r"\bp[0-9a-f]{10}\b", "p", text) for name, text in texts.items()}
    return {name: re.sub(r"\d+\.\d+", lambda n: f"{float(n[0]):.2f}", text) for name, text in nameless.items()}


def modules_after(*arguments: str, root: Path) -> tuple[int, set[str]]:
    """The exit code of a command and the modules that it imported."""
    code = (
        "import sys\nfrom afno_repro.cli import main\ntry:\n    main()\nexcept SystemExit as end:\n    print('\\n"
        "', end.code, *sys.modules, sep='\\n')\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=root, capture_output=True, text=True, check=True
    ).stdout
    code, *names = out[out.rindex("\n\n") :].split()
    return int(code) if code != "None" else 0, set(names)


COMMANDS = ["run", "pretrain", "profile", "convert", "export", "report", "list", "check", "doctor"]


@pytest.mark.parametrize(
    "arguments", [["--help"], *([c, "--help"] for c in COMMANDS), ["list"], ["report"], list(SMOKE)], ids=" ".join
)
def test_what_needs_no_torch_does_not_import_it(done, arguments):
    code, names = modules_after(*arguments, root=done)
    assert code == 0
    assert "typer" in names
    assert "torch" not in names
    assert "scipy" not in names or not {"list", "--help"} & {
        *arguments
    }  # nor does what tests nothing import statistics


FIRST = """
import sys
from afno_repro.cli import main

class Told:
    def write(self, text):
        if text:
            print("torch" in sys.modules, flush=True)
            sys.stderr = sys.__stderr__
    def flush(self): pass
    def isatty(self): return %s

sys.stderr = Told()
main()
"""


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("command", [["run", "small"], ["run", "small", "--dry-run"], ["check", "small"]], ids=" ".join)
def test_the_first_word_comes_before_torch(command, terminal, tmp_path):
    if command[0] == "check" and not terminal:
        pytest.skip("into a file it says its answer alone")
    write_spec(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-c", FIRST % terminal, *command, *(["--device", "cpu"] * (command[0] == "run"))],
        cwd=tmp_path,
        env={**os.environ, "TERM": "xterm"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "False\n"
        process.kill()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_has_help(command):
    from typer.main import get_command

    from afno_repro.cli import app

    found = get_command(app).commands[command]
    assert found.help
    assert all(p.help for p in found.params)


def test_the_smoke_run_fills_every_cell(done):
    folder = done / "runs" / "smoke"
    assert {p.name for p in folder.iterdir()} == {
        "small.csv",
        "small.md",
        "small.tex",
        "cells.csv",
        "claims.csv",
        "report.md",
        "report.html",
        "records",
        ".lock",
    }
    lines = (folder / "cells.csv").read_text().splitlines()[1:]
    assert {line.split(",")[-3] for line in lines} == {"measured", "not_applicable"}
    assert not (done / "results").exists()


def test_the_files_of_a_run_are_those_that_the_docs_name(done):
    page = (ROOT / "docs/how-a-table-is-made.md").read_text()
    named = {
        *re.findall(r"^\| `([^`]+)` \|", page.partition("## The run and its record")[2].partition("\n## ")[0], re.M)
    }
    made = {path.name for path in (done / "runs").glob("*-*/*")}
    assert made == named - {"tensorboard/", "checkpoints/", "artifacts.npz", "error.txt"}


def test_a_second_run_computes_nothing_and_changes_nothing(done):
    before = hashes(done / "runs")
    again = afno(*SMOKE, root=done)
    assert "started" not in again.stderr
    assert hashes(done / "runs") == before


def test_signs_of_verdicts_are_explained_where_there_are_some(tmp_path):
    write_spec(tmp_path)
    write_spec(tmp_path, re.sub(r"    paper: .*\n", "", SMALL), "own")
    shown = [afno("profile", name, "--scale", "smoke", root=tmp_path).stdout for name in ("small", "own")]
    assert ["= stated" in text for text in shown] == [True, False]


def test_seeds_says_how_many_in_all_and_keeps_what_is_finished(done, tmp_path):
    shutil.copytree(done, tmp_path, dirs_exist_ok=True)
    records = tmp_path / "runs" / "smoke" / "records" / "small"
    before = hashes(records)
    plan = answer(*SMOKE, "--seeds", "3", "--dry-run", root=tmp_path)
    assert {(e["seed"], e["state"]) for e in plan if (e["row"], e["stage"]) == ("afno", "pretrain")} == {
        (0, "done"),
        (1, "to do"),
        (2, "to do"),
    }
    again = afno(*SMOKE, "--seeds", "3", root=tmp_path)
    assert "afno/pretrain seed 1: ok" in again.stderr
    assert "seed 0" not in again.stderr
    assert {name: after for name, after in hashes(records).items() if name in before} == before
    assert {f"{row}.pretrain.{seed}.json" for row in ("afno", "gfn") for seed in range(3)} <= {*hashes(records)}
    lines = (tmp_path / "runs" / "smoke" / "cells.csv").read_text().splitlines()
    assert [line.split(",")[6] for line in lines if line.startswith("small,afno,psnr,")] == ["3"]
    runs = answer("list", "small", "--scale", "smoke", root=tmp_path)
    assert {e["seed"]: (e["yours"], e["to_do"]) for e in runs if e["stage"] == "pretrain"} == dict.fromkeys(
        range(3), (True, False)
    )
    (counted,) = answer("list", "--scale", "smoke", root=tmp_path)
    assert (counted["yours"], counted["missing_runs"], counted["to_do"]) == (counted["runs"], 0, 0) == (len(runs), 0, 0)
    rebuilt = hashes(tmp_path / "runs" / "smoke")
    afno("report", root=tmp_path)
    assert hashes(tmp_path / "runs" / "smoke") == rebuilt  # no option is needed to see them


def test_a_column_of_a_metric_that_no_run_has_ends_with_2_before_any_work(tmp_path):
    write_spec(tmp_path, SMALL.replace("pretrain/psnr", "pretrain/psrn"))
    for arguments in (("check", "small"), (*SMOKE, "--dry-run")):
        said = afno(*arguments, root=tmp_path, expect=2).stderr
        assert "no metric 'psrn'" in said
        assert "Did you mean 'psnr'?" in said


def test_the_list_and_the_plan_call_a_training_with_a_checkpoint_half_done(tmp_path):
    plan = plan_runs(load_spec(write_spec(tmp_path)), "smoke")
    (tmp_path / "runs" / plan.needs["afno", "pretrain", 0].id / "checkpoints").mkdir(parents=True)
    planned = answer(*SMOKE, "--dry-run", root=tmp_path)
    assert [(e["row"], e["stage"]) for e in planned if e["state"] == "half done"] == [("afno", "pretrain")]
    listed = answer("list", "small", "--scale", "smoke", root=tmp_path)
    assert [(e["row"], e["stage"]) for e in listed if e["half_done"]] == [("afno", "pretrain")]
    assert afno("list", "small", "--scale", "smoke", root=tmp_path).stdout.count("half done") == 1


def test_report_rebuilds_the_same_bytes_from_records(done):
    before = hashes(done / "runs" / "smoke")
    for name in ("small.csv", "small.md", "cells.csv", "claims.csv", "report.md", "report.html"):
        (done / "runs" / "smoke" / name).unlink()
    afno("report", root=done)
    assert hashes(done / "runs" / "smoke") == before


def test_the_committed_results_are_what_report_makes_of_the_committed_records(tmp_path):
    for name in ("experiments", "results/reference"):
        shutil.copytree(ROOT / name, tmp_path / name)
    before, drawn = hashes(tmp_path / "results/reference"), drawings(tmp_path / "results/reference")
    for path in (tmp_path / "results/reference").glob("*/*"):
        if path.is_file():
            path.unlink()
    afno("report", "--update-reference", root=tmp_path)
    after = hashes(tmp_path / "results/reference")
    assert after.keys() == before.keys() > {"tiny/table2.md", "tiny/table2_training.png"}
    assert [n for n in before if not n.endswith((".svg", ".pdf")) and after[n] != before[n]] == []
    assert drawings(tmp_path / "results/reference") == drawn


def test_report_of_a_scale_without_records_writes_nothing(done):
    assert "no records" in afno("report", "--scale", "paper", root=done).stdout
    assert not (done / "results" / "paper").exists()


def test_json_is_one_value_and_nothing_else(done):
    table = answer(*SMOKE, root=done)[0]
    assert table["table"] == "small"
    assert {cell["state"] for cell in table["cells"]} == {"measured", "not_applicable"}
    listed = answer("list", root=done)
    assert [(e["scale"], e["runs"], e["yours"]) for e in listed] == [("smoke", 5, 5), ("tiny", 5, 0), ("paper", 7, 0)]
    assert answer("report", root=done)[0]["cells"] == {"measured": 5, "not_applicable": 1}
    assert answer("check", "small", root=done)[0]["table"] == "small"
    assert answer("doctor", root=done)["healthy"] is True
    assert answer(*SMOKE, "--dry-run", root=done)[0]["state"] == "done"


def test_doctor_says_which_folder_of_data_is_there(tmp_path):
    def told(*options, expect=0):
        (line,) = [e for e in answer("doctor", *options, root=tmp_path, expect=expect)["lines"] if e["what"] == "data"]
        return line["found"], line["ok"]

    assert told() == ("data is not there: the smoke and tiny scales need none", True)
    assert told("--data", "nowhere", expect=3) == ("nowhere is not there: the smoke and tiny scales need none", False)
    (tmp_path / "data").mkdir()
    assert told() == ("data; afno data looks into it", True)


def test_json_of_an_error_is_one_value_too(done):
    error = answer("run", "smal", root=done, expect=2)
    assert error["exit_code"] == 2
    assert "Did you mean 'small'?" in error["error"]


@pytest.mark.parametrize("scale", ["smoke", "tiny", "paper"])
def test_a_dry_run_shows_the_plan_and_an_estimate_and_does_nothing(done, scale):
    before = hashes(done / "runs")
    plan = answer("run", "small", "--scale", scale, "--dry-run", root=done)
    assert hashes(done / "runs") == before
    assert {entry["state"] for entry in plan if entry["stage"] == "cost"} == {
        "done"
    }  # they are the same at every scale
    if scale != "smoke":
        entry = next(e for e in plan if e["stage"] == "pretrain" and e["row"] == "afno")
        assert entry["state"] == "to do"
        assert entry["estimate_s"] > 0


def test_a_dry_run_of_a_sound_spec_ends_with_0_when_its_data_are_absent(tmp_path):
    plan = answer("run", str(ROOT / "experiments/table2.yaml"), "--scale", "paper", "--dry-run", root=tmp_path)
    assert {e["state"] for e in plan if e["stage"] == "pretrain"} == {"no data"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "nothing"], "there is no spec 'nothing'"),
        (["run", "small", "--scale", "tinny"], "Did you mean 'tiny'?"),
        (["run", "small", "--row", "afn"], "there is no row 'afn'"),
        (["run", "small", "--seed", "7"], "scale tiny has no seed 7"),
        (["report", "--scale", "huge"], "there is no scale 'huge'"),
        (["check", "nothing.yaml"], "there is no spec 'nothing.yaml'"),
        (["run", "small", "--device", "tpu"], "must be auto, cpu, cuda"),
        (["run", "small", "--set", "nonsense"], "KEY=VALUE"),
        (["run", "small", "--jobs", "0"], "--jobs"),
        (["run", "small", "--seeds", "0"], "--seeds"),
        (["fly"], "fly"),
    ],
    ids=" ".join,
)
def test_a_mistake_in_usage_ends_with_2(done, arguments, says):
    assert says in afno(*arguments, root=done, expect=2).stderr


def test_a_gpu_that_is_not_there_ends_with_3(done):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    assert "--device cpu runs without one" in afno("run", "small", "--device", "cuda", root=done, expect=3).stderr


@pytest.mark.parametrize("command", ["check", "run"])
def test_all_mistakes_of_a_spec_are_told_at_once(tmp_path, command):
    changes = {
        "group: inpainting": "group: inpainting\ngroop: x",
        "title: A small table": "title: A small table\ntitle: Again",
        "num_blocks: 2": "num_blocks: 3",
        "sparsity_threshold: 0.01": "sparsity_threshold: -1",
        "keep: 1.0": "keep: 0",
        "patch_size: 4, embed_dim": "patch_size: 5, embed_dim",
        "epochs: 3": "epochs: three",
    }
    text = SMALL
    for old, new in changes.items():
        text = text.replace(old, new, 1)
    path = write_spec(tmp_path, text, "broken")
    err = afno(command, str(path), root=tmp_path, expect=2).stderr
    for word in (
        "'groop'",
        "duplicate key 'title'",
        "num_blocks",
        "sparsity_threshold",
        "keep",
        "patch_size",
        "epochs",
    ):
        assert word in err, word
    mistakes = [line for line in err.splitlines() if " at tiny scale on the CPU" not in line]
    assert all("broken.yaml:" in line for line in mistakes if not line.startswith("  "))
    assert not (tmp_path / "runs").exists()


IMAGENET = SMALL.replace(
    "data: {name: photos, image_size: 16, fraction: 1.0, seed: 0, train: [coffee], test: [flower],\n"
    "           train_crops: 24, test_crops: 8, side: [32, 200]}",
    "data: {name: imagenet, image_size: 16, fraction: 1.0, seed: 0, crop_fraction: 0.875, skip: []}",
).replace("augment: {name: flip}", "augment: {name: random_crop, side: [0.5, 1.0]}")


def test_a_missing_data_folder_names_the_layout_before_anything_runs(tmp_path):
    write_spec(tmp_path, IMAGENET)
    layout = "imagenet/train/CLASS/*.JPEG"
    assert layout in afno("check", "small", root=tmp_path, expect=3).stderr
    assert layout in afno("pretrain", "small", "--device", "cpu", root=tmp_path, expect=3).stderr
    part = afno("run", "small", "--device", "cpu", root=tmp_path, expect=4)  # the counts need no data
    assert "left out: afno, fill_mean, gfn" in part.stderr
    assert "missing" in (tmp_path / "results/tiny/cells.csv").read_text()


def test_a_seed_that_was_left_out_for_lack_of_data_is_missing_though_its_cell_has_a_number(tmp_path):
    from tests.data.test_samples import make_imagenet

    write_spec(tmp_path, IMAGENET.replace("tiny: {seeds: [0]}", "tiny: {seeds: [0, 1]}"))
    make_imagenet(tmp_path / "sets")
    run = ("run", "small", "--row", "gfn", "--device", "cpu")
    afno(*run, "--seed", "0", "--data", str(tmp_path / "sets"), root=tmp_path)
    shutil.rmtree(next((tmp_path / "runs").glob("profile-gfn-*")))  # which needs no data
    assert "left out: gfn" in afno(*run, root=tmp_path, expect=4).stderr


def test_an_image_folder_is_trained_on_from_the_option_or_the_environment(tmp_path):
    import os

    from tests.data.test_samples import make_imagenet

    write_spec(tmp_path, IMAGENET)
    make_imagenet(tmp_path / "sets")
    arguments = ("run", "small", "--scale", "smoke", "--device", "cpu", "--row", "gfn")
    afno(*arguments, "--data", str(tmp_path / "sets"), root=tmp_path)
    assert answer(*arguments, root=tmp_path)[0]["cells"]  # finished: no data needed any more
    afno("check", "small", root=tmp_path, env={**os.environ, "AFNO_DATA": str(tmp_path / "sets")})


def test_a_run_held_by_another_process_ends_with_6(done):
    spec = load_spec(done / "experiments" / "small.yaml")
    run = plan_runs(spec, "tiny").needs["afno", "pretrain", 0]
    with Store(done / "runs").lock(run):
        err = afno("run", "small", "--row", "afno", "--device", "cpu", root=done, expect=6).stderr
    assert "is held by process" in err
    assert (done / "results" / "tiny" / "small.md").is_file()  # what was done is written all the same


def test_a_folder_that_cannot_be_written_ends_with_7_before_training(tmp_path):
    write_spec(tmp_path)
    (tmp_path / "results").write_text("a file where a folder should be")
    assert "results" in afno("run", "small", "--device", "cpu", root=tmp_path, expect=7).stderr
    assert not list((tmp_path / "runs").glob("*/config.json"))


def test_changed_settings_go_to_a_folder_of_their_own(done):
    before = hashes(done / "runs" / "smoke")
    afno(
        "run",
        "small",
        "--scale",
        "tiny",
        "--row",
        "gfn",
        "--set",
        "pretrain.train.epochs=1",
        "--device",
        "cpu",
        root=done,
        expect=0,
    )
    assert "changed by --set pretrain.train.epochs=1" in (done / "results/custom/tiny/small.md").read_text()
    assert hashes(done / "runs" / "smoke") == before


def test_pretrain_does_the_trainings_and_the_fills_alone(tmp_path):
    write_spec(tmp_path)
    afno("pretrain", "small", "--scale", "smoke", "--device", "cpu", "--jobs", "1", root=tmp_path)
    assert {p.name.split("-")[0] for p in (tmp_path / "runs").iterdir()} == {"pretrain", "baseline", "smoke", "locks"}


@pytest.mark.parametrize(("stream", "command"), [("stdout", ["list"]), ("stderr", ["list", "--nope"])])
def test_a_reader_that_leaves_ends_a_command_with_its_own_exit_code(done, stream, command):
    with subprocess.Popen(
        [sys.executable, "-m", "afno_repro", *command], cwd=done, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        heard = {"stdout": process.stdout, "stderr": process.stderr}
        heard.pop(stream).close()
        (other,) = heard.values()
        assert b"Traceback" not in other.read()
    assert process.returncode == 128 + signal.SIGPIPE


def test_an_ascii_terminal_is_no_accident(done):
    afno(*SMOKE, root=done, env={**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"})


def test_closed_standard_streams_are_no_accident_and_no_file_takes_their_place(tmp_path):
    from tests.data.test_samples import make_imagenet

    write_spec(tmp_path, IMAGENET)
    make_imagenet(tmp_path / "data")
    broken = next((tmp_path / "data").rglob("val/*/*.JPEG"))

    def run(closed, *arguments):
        command = ["bash", "-c", f'exec "$@" {closed}', "bash", sys.executable, "-m", "afno_repro", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    trained = run("2>&- >&- <&-", "pretrain", "small", "--row", "gfn", "--device", "cpu", "--jobs", "2")
    assert trained.returncode == 0
    broken.write_bytes(broken.read_bytes()[:-200] + b"\xff\xd9")  # libjpeg says so on descriptor 2
    found = run("2>&-", "data", "--check")
    assert found.returncode == 3
    assert str(broken.relative_to(tmp_path)) in "".join(found.stdout.split())
    mistaken = run("2>&-", "run", "nosuch")
    assert (mistaken.returncode, mistaken.stdout, mistaken.stderr) == (2, "", "")


def test_quiet_says_nothing_while_running(tmp_path):
    write_spec(tmp_path)
    assert afno(*SMOKE, "--row", "fill_mean", "--quiet", root=tmp_path).stderr == ""


def test_list_counts_what_is_missing(done):
    listed = {e["scale"]: e for e in answer("list", root=done)}
    assert listed["paper"]["missing"]
    assert json.dumps(listed["smoke"]["missing"]) == "[]"


def test_a_published_checkpoint_is_converted_and_another_format_is_refused(tmp_path):
    import torch

    from tests.weights.test_convert import GFN, tensors, vit_shapes

    torch.save(tensors(vit_shapes(GFN)), tmp_path / "gfnet.pth")
    found = answer("convert", "gfnet.pth", "--format", "gfnet", "--out", "weights.safetensors", root=tmp_path)
    assert found["missing"] == found["unexpected"] == []
    assert found["sha256"] == hashlib.sha256((tmp_path / "gfnet.pth").read_bytes()).hexdigest()
    assert (tmp_path / "weights.safetensors").is_file()
    afno("convert", "gfnet.pth", "--format", "segformer", "--out", "other.safetensors", root=tmp_path, expect=2)
    afno("convert", "nothing.pth", "--format", "gfnet", "--out", "other.safetensors", root=tmp_path, expect=3)
    assert not (tmp_path / "other.safetensors").exists()


def test_a_package_that_is_not_installed_is_named_and_other_commands_go_on(tmp_path):
    import os

    write_spec(tmp_path)
    (tmp_path / "absent").mkdir()
    (tmp_path / "absent" / "torch.py").write_text("raise ModuleNotFoundError('No module named torch', name='torch')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "absent")}
    assert (
        "pip install torch" in afno("run", "small", "--device", "cpu", root=tmp_path, env=environment, expect=3).stderr
    )
    afno("list", root=tmp_path, env=environment)


@pytest.mark.parametrize("home", [True, False])
def test_a_relative_entry_of_pythonpath_counts_only_where_this_package_lies(tmp_path, monkeypatch, home):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", ".")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(cli, "HOME", str(tmp_path) if home else "/elsewhere")
    cli._leave_this_folder()
    assert (str(tmp_path) in sys.path) == home


def test_the_version_is_that_of_the_package(tmp_path):
    assert afno("--version", root=tmp_path).stdout == f"afno {afno_repro.__version__}\n"


@pytest.mark.skipif(sys.platform != "linux", reason="torch comes with another OpenMP there")
@pytest.mark.parametrize(
    ("own", "spins"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "PASSIVE"}, "0")],
    ids=["nothing set", "a count of one's own", "a policy of one's own"],
)
def test_threads_that_wait_soon_sleep_unless_the_environment_says_otherwise(tmp_path, own, spins):
    theirs = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    shown = {**theirs, **own, "OMP_DISPLAY_ENV": "VERBOSE"}  # libgomp tells what it has read as it is loaded
    write_spec(tmp_path, SMALL)
    told = afno("check", "small", root=tmp_path, env=shown).stderr
    assert set(re.findall(r"GOMP_SPINCOUNT = '(\d+)'", told)) == {spins}

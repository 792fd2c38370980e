"""What a file from elsewhere must not do: leave its folder by a name, run code by a pickle, or reach a network."""

import ast
import hashlib
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from afno_repro.data.fewshot import fewshot
from afno_repro.data.reading import read_mask, size_of
from afno_repro.errors import AfnoError, ConfigError, DataError, StorageError
from afno_repro.runs.store import read_arrays
from afno_repro.spec.names import LONGEST
from afno_repro.spec.reader import load_spec
from afno_repro.training import checkpoint
from afno_repro.weights.checkpoint import read_state_dict
from tests.command import afno
from tests.commands.test_own_images import STAGE
from tests.specs import ROOT, SMALL, write_spec

NAMES = [
    *(
        "..",
        ".",
        "../../x",
        "a/b",
        "/tmp/x",
        "C:\\x",
        "a\\..\\b",
        "a\0b",
        "a\nb",
        "\x1b[31m",
        ".a",
        "-a",
        "a%2e",
        "%s",
        "a b",
        "a*",
        "a?",
        "[a]",
        "~",
        "a:b",
    ),
    *("$HOME", "a|b", "\u202ea", "é", "a" * (LONGEST + 1), "a" * 900, ""),
]
KINDS = {
    "row": ("key: gfn\n", "key: NAME\n"),
    "stage": ("  pretrain:\n    kind", "  NAME:\n    kind"),
    "column": ("{key: psnr, title", "{key: NAME, title"),
    "source": ("source: pretrain/psnr", "source: NAME"),
    "figure": ("scales:\n", "figures: [{name: training, stage: pretrain, suffix: NAME}]\nscales:\n"),
}
VISUAL = SMALL.replace("columns:\n", STAGE + "columns:\n", 1)
VISUAL = VISUAL.replace("task: {fill: mean}, train: null}", "task: {fill: mean}, train: null}\n    triptychs: null")


def everything(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_a_name_that_could_leave_its_folder_is_refused_with_its_place(tmp_path, kind, name):
    if (kind, name) == ("figure", ""):
        return  # a spec's only figure needs no suffix
    text = SMALL.replace(
        KINDS[kind][0], KINDS[kind][1].replace("NAME", json.dumps(f"pretrain/{name}" if kind == "source" else name)), 1
    )
    line = next(i for i, new in enumerate(text.splitlines(), 1) if new not in SMALL.splitlines())
    before = everything(tmp_path)
    with pytest.raises(ConfigError) as error:
        load_spec(write_spec(tmp_path / "root", text), "small.yaml")
    told = [problem for problem in error.value.problems if problem.place.startswith(f"small.yaml:{line}:")]
    assert any(
        "must be a name: letters (a-z" in problem.message or "must be a stage and a metric" in problem.message
        for problem in told
    ), error.value
    assert len(str(error.value)) < 5000
    assert set(everything(tmp_path)) - set(before) == {
        tmp_path / part for part in ("root", "root/experiments", "root/experiments/small.yaml")
    }


@pytest.mark.parametrize("name", ["lambda_0.1", "afno-25", "0", "_", "a" * LONGEST])
def test_a_row_may_have_dots_inside_its_key(tmp_path, name):
    text = SMALL.replace("key: gfn\n", f"key: '{name}'\n").replace("worse: gfn", f"worse: '{name}'")
    assert load_spec(write_spec(tmp_path, text)).rows[0].key == name
    with pytest.raises(ConfigError, match="must be a name"):
        load_spec(write_spec(tmp_path, text.replace(f"'{name}'", "a..b")))


@pytest.mark.parametrize("seed", ["-1", "4294967296", "'../x'", "1.5"])
def test_a_seed_that_no_generator_takes_is_refused(tmp_path, seed):
    with pytest.raises(ConfigError, match=r"scales\.tiny\.seeds\.0"):
        load_spec(write_spec(tmp_path, SMALL.replace("tiny: {seeds: [0]}", f"tiny: {{seeds: [{seed}]}}")))


@pytest.mark.parametrize(
    "stem", ["..", ".x", "-x", "a b", "a\nb", "cells", "claims", "report", "x\x1b[31m", "a" * 100, "a.b"]
)
def test_a_spec_whose_file_is_no_name_is_refused(tmp_path, stem):
    path = tmp_path / f"{stem}.yaml"
    path.write_text(SMALL)
    with pytest.raises(ConfigError, match=r"a spec('s file must have a name| cannot be called)"):
        load_spec(path)


def test_hostile_words_on_the_command_line_end_without_a_file_outside(tmp_path):
    write_spec(tmp_path / "root")
    (tmp_path / "root" / "...yaml").write_text(SMALL)
    before = everything(tmp_path)
    for arguments in (
        ("...yaml",),
        ("small", "--scale", "../../x"),
        ("small", "--row", "../x"),
        ("../../etc",),
        ("small", "--set", "../x.y=1"),
        ("x" * 5000,),
    ):
        assert (
            "must" in (err := afno("run", *arguments, root=tmp_path / "root", expect=2).stderr)
            or "there is no" in err
            or "has no" in err
        )
    afno("report", "--scale", "../..", root=tmp_path / "root", expect=2)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("folder", ["..", "../x", "/tmp", "a/../../x", "", "."])
def test_a_data_folder_stays_below_the_data_root(tmp_path, folder):
    with pytest.raises(ConfigError, match="must be a folder below the data root"):
        fewshot(16, 1.0, 0, tmp_path, folder, 2, 0, 100)


@pytest.mark.parametrize("folder", ["a\0b", "a\nb", "x" * 5000, "%2e%2e", "..\\..\\x"])
def test_a_strange_data_folder_is_only_absent(tmp_path, folder):
    with pytest.raises(DataError):
        fewshot(16, 1.0, 0, tmp_path, folder, 2, 0, 100)


class Evil:
    """Unpickling it makes a folder."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def evil_files(folder, marker):
    """A pickle that makes the marker, in every container that a weights file may have."""
    named = {"w": torch.ones(2), "model": {"x": Evil(marker)}}
    for name in ("raw.pt", "raw.pth", "raw.safetensors", "raw.bin"):
        (folder / name).write_bytes(pickle.dumps(named, protocol=2))  # the protocol that PyTorch reads
    for name, zipped in (("zip.pt", True), ("zip.safetensors", True), ("old.pth", False)):
        torch.save(named, folder / name, _use_new_zipfile_serialization=zipped)
    return sorted(folder.iterdir())


def test_no_weights_file_runs_a_pickle(tmp_path):
    marker = tmp_path / "marker"
    (tmp_path / "files").mkdir()
    files = evil_files(tmp_path / "files", marker)
    for path in files:
        with pytest.raises(AfnoError):
            read_state_dict(path)
        assert not marker.exists(), path
    write_spec(tmp_path, VISUAL)
    for path in files[-2:]:
        afno(
            "convert",
            str(path),
            "--format",
            "gfnet",
            "--out",
            "out.safetensors",
            root=tmp_path,
            expect=3 if path.suffix == ".safetensors" else 2,
        )
    afno("visualize", "small", "--row", "gfn", "--from", str(files[-2]), root=tmp_path, expect=2)
    assert not marker.exists()
    pickle.loads((tmp_path / "files/raw.pt").read_bytes())
    assert marker.exists()  # so it is no dud


def test_no_checkpoint_runs_a_pickle(tmp_path):
    marker, folder = tmp_path / "marker", tmp_path / "checkpoints"
    for step, data in enumerate([path.read_bytes() for path in evil_files(tmp_path, marker)]):
        place = folder / f"step-{step:09d}"
        place.mkdir(parents=True)
        (place / "state.pt").write_bytes(data)
        (place / "manifest.json").write_text(
            json.dumps({"state.pt": {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}})
        )
    with pytest.raises(StorageError, match="no checkpoint is whole"):
        checkpoint.load_newest(folder, print)
    assert not marker.exists()


def test_no_array_file_runs_a_pickle(tmp_path):
    marker = tmp_path / "marker"
    evil = np.array([[Evil(marker)]], dtype=object)
    np.save(tmp_path / "mask.npy", evil, allow_pickle=True)
    np.savez(tmp_path / "arrays.npz", labels=evil)
    (tmp_path / "raw.npz").write_bytes(pickle.dumps(evil))
    (tmp_path / "raw.npy").write_bytes(pickle.dumps(evil))
    for name in ("arrays.npz", "raw.npz"):
        with pytest.raises(ValueError, match="no whole file of arrays"):
            read_arrays(tmp_path / name)
    for name in ("mask.npy", "raw.npy"):
        for read in (read_mask, size_of):
            with pytest.raises(DataError):
                read(tmp_path / name)
    assert not marker.exists()
    np.load(tmp_path / "mask.npy", allow_pickle=True)
    assert marker.exists()


FORBIDDEN_MODULES = {
    *("marshal", "shelve", "dill", "joblib", "cloudpickle", "code"),
    *("socket", "http", "urllib.request", "requests", "ftplib", "smtplib"),
}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_ATTRIBUTES = {
    "os.system",
    "os.popen",
    "pandas.read_pickle",
    "pd.read_pickle",
    "torch.hub",
    "np.fromregex",
    "pickle.load",
    "pickle.loads",
}
YAML = {
    "YAMLError",
    "Node",
    "ScalarNode",
    "MappingNode",
    "SequenceNode",
    "CollectionStartEvent",
    "CollectionEndEvent",
    "SafeLoader",
    "compose",
    "parse",
}


def keyword(call, name):
    return next(
        (ast.literal_eval(k.value) for k in call.keywords if k.arg == name and isinstance(k.value, ast.Constant)), None
    )


def suspicions(path):
    """Every place of a module that could execute what a file or a string says."""
    for node in ast.walk(ast.parse(path.read_text())):
        name = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        modules = (
            [a.name for a in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
        called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        bad = {
            "module": any(
                module in FORBIDDEN_MODULES or module.split(".")[0] in FORBIDDEN_MODULES for module in modules
            ),
            "from": isinstance(node, ast.ImportFrom) and node.module in ("pickle", "yaml"),
            "attribute": name in FORBIDDEN_ATTRIBUTES
            or (name.startswith("pickle.") and name != "pickle.UnpicklingError"),
            "yaml": name.startswith("yaml.") and name.split(".")[1] not in YAML,
            "call": called in FORBIDDEN_CALLS,
            "torch.load": called == "torch.load" and keyword(node, "weights_only") is not True,
            "np.load": called in ("np.load", "numpy.load") and keyword(node, "allow_pickle") is not False,
            "shell": isinstance(node, ast.Call) and any(k.arg == "shell" for k in node.keywords),
        }
        yield from (f"{path}:{node.lineno}: {what}" for what, found in bad.items() if found)


def test_the_package_executes_nothing_that_it_reads():
    found = [place for path in sorted((ROOT / "afno_repro").rglob("*.py")) for place in suspicions(path)]
    assert found == []


HARMFUL = """
pickle.loads(x)
from pickle import loads
torch.load(x)
torch.load(x, weights_only=False)
np.load(x)
np.load(x, allow_pickle=True)
yaml.load(x)
yaml.unsafe_load(x)
eval(x)
subprocess.run(x, shell=True)
import urllib.request
os.system(x)
"""


@pytest.mark.parametrize("line", HARMFUL.split("\n")[1:-1])
def test_the_search_finds_what_it_looks_for(tmp_path: Path, line):
    (tmp_path / "m.py").write_text(line)
    assert list(suspicions(tmp_path / "m.py"))

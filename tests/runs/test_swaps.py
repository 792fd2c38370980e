"""Any two artefacts of two runs exchanged: each exchange is named, or changes nothing and the file was looked at."""

import hashlib
import shutil

import pytest

from tests.command import start
from tests.commands.test_own_images import STAGE
from tests.specs import SMALL, write_spec

PICTURED = SMALL.replace("columns:\n", STAGE + "columns:\n", 1).replace(
    "task: {fill: mean}, train: null}", "task: {fill: mean}, train: null}\n    triptychs: null"
)
PICTURED += "figures: [{name: training, stage: pretrain}, {name: triptychs, stage: triptychs, suffix: shown}]\n"
RUN = ("run", "small", "--device", "cpu", "--jobs", "1")
KINDS = ("pretrain", "visualize")
ARTEFACTS = {
    "pretrain": ("config.json", "weights.safetensors", "record.json", "log.csv"),
    "visualize": ("config.json", "record.json", "artifacts.npz"),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder in which everything is done, and its tables."""
    root = tmp_path_factory.mktemp("whole")
    write_spec(root, PICTURED)
    finish(root)
    return root, tables(root)


def finish(root):
    process = start(*RUN, root=root)
    _, err = process.communicate(timeout=300)
    assert "Traceback" not in err, err
    return process.returncode, err


def tables(root):
    """Every file of the results but the records, by content."""
    files = sorted(path for path in (root / "results").rglob("*") if path.is_file() and "records" not in path.parts)
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in KINDS for name in ARTEFACTS[kind]])
def test_two_artefacts_exchanged_are_named(whole, tmp_path, kind, name):
    root = tmp_path / "root"
    shutil.copytree(whole[0], root)
    one, other = sorted((root / "runs").glob(f"{kind}-*"))[:2]
    (one / name).rename(tmp_path / "held")
    (other / name).rename(one / name)
    (tmp_path / "held").rename(other / name)
    code, err = finish(root)
    assert (code, tables(root)) != (0, whole[1]) or name in err
    assert code == 7
    told = [f"{path.name}/{name}" in err for path in (one, other)]
    assert any(told) if name == "record.json" else all(told)


def test_committed_arrays_and_logs_exchanged_are_named(whole, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(whole[0], root)
    for ending in ("csv", "npz"):
        one, other = sorted((root / "results/tiny/records/small").glob(f"*.{ending}"))[:2]
        one.rename(tmp_path / "held")
        other.rename(one)
        (tmp_path / "held").rename(other)
        process = start("report", "--scale", "tiny", root=root)
        _, err = process.communicate(timeout=300)
        assert process.returncode != 0
        assert any(f"{path.name}: not the bytes that were written" in err for path in (one, other))
        shutil.rmtree(root)
        shutil.copytree(whole[0], root)

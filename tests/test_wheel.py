"""The wheel holds the specs and the reference results and works in an empty folder; the sdist holds the checkout."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

from tests.specs import ROOT

pytestmark = pytest.mark.skipif(not (ROOT / "setup.py").is_file(), reason="not a checkout")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built where an earlier build, a command and an editor left files."""
    copy = tmp_path_factory.mktemp("wheel")
    for name in ("afno_repro", "experiments", "results/reference"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    (copy / "build/lib/afno_repro").mkdir(parents=True)
    for name in ("build/lib/afno_repro/gone.py", "results/reference/.lock", "experiments/.#table2.yaml"):
        (copy / name).touch()
    return built(copy, "wheel")


def built(folder, kind):
    """What the build makes in a folder."""
    code = f"from setuptools import build_meta; build_meta.build_{kind}('dist')"
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True)
    return next((folder / "dist").iterdir())


def test_the_wheel_holds_the_checkouts_specs_and_reference_and_nothing_else_of_results(wheel):
    with zipfile.ZipFile(wheel) as archive:
        found = {name: archive.read(name) for name in archive.namelist() if "/shipped/" in name}
        modules = {name for name in archive.namelist() if name.endswith(".py")}
    files = [path for top in ("experiments", "results/reference") for path in (ROOT / top).rglob("[!.]*.*")]
    assert found == {f"afno_repro/shipped/{path.relative_to(ROOT)}": path.read_bytes() for path in files}
    assert "afno_repro/shipped/experiments/table2.yaml" in found
    assert modules == {str(path.relative_to(ROOT)) for path in (ROOT / "afno_repro").rglob("*.py")}


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="git does not say here what belongs to the checkout")
def test_the_sdist_holds_the_whole_checkout(tmp_path):
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    files = [name for name in listed.split("\0") if name and not name.startswith(".")]
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    with tarfile.open(built(tmp_path, "sdist")) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    made = {"PKG-INFO", "setup.cfg"}
    assert {name for name in names - made if "egg-info/" not in name} == set(files)


@pytest.mark.slow
def test_the_wheel_works_in_an_empty_folder_and_writes_below_it_alone(wheel, tmp_path):
    site, folder = tmp_path / "site", tmp_path / "empty"
    folder.mkdir()
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*pip, str(wheel)], check=True)
    before = {path: path.stat().st_mtime_ns for path in (site / "afno_repro/shipped").rglob("*")}

    def afno(*arguments):
        command = [sys.executable, "-m", "afno_repro", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(site)}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert str(site) in afno("list")  # where the reference lies
    assert "table2 at paper scale: sound" in afno("check", "table2")
    assert "afno" in afno("profile", "--mixer", "afno", "--res", "1024")
    assert "GFN" in afno("run", "table5", "--scale", "smoke", "--device", "cpu")
    afno("report")
    assert (folder / "runs/smoke/table5.md").is_file()
    assert "Reference: Table 2" in (folder / "results/tiny/report.md").read_text()
    assert "written in experiments: " in afno("init")
    assert {path.name for path in folder.iterdir()} == {"experiments", "results", "runs"}
    assert {path: path.stat().st_mtime_ns for path in (site / "afno_repro/shipped").rglob("*")} == before

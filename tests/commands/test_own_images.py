"""Pictures of a spec's own images, of other images and of other weights; the same bytes from the same records."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.command import afno, answer
from tests.specs import SMALL, write_spec

STAGE = """\
  triptychs:
    kind: visualize
    init: pretrain
    task: {name: triptychs, images: 2, walk: {grid: tokens, patch_size: 4, steps: 16}}
    data: {name: photos, image_size: 16, fraction: 1.0, seed: 0, train: [coffee], test: [flower],
           train_crops: 24, test_crops: 8, side: [32, 200]}
"""
FIGURES = """\
figures:
  - {name: triptychs, stage: triptychs, suffix: triptychs}
  - {name: training, stage: pretrain, suffix: training}
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    text = SMALL.replace("columns:\n", STAGE + "columns:\n", 1).replace("scales:\n", FIGURES + "scales:\n", 1)
    text = text.replace("task: {fill: mean}, train: null}", "task: {fill: mean}, train: null}\n    triptychs: null")
    write_spec(folder, text)
    afno("visualize", "small", root=folder)
    return folder


def made(root):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (root / "results/tiny").glob("small_*")
    }


def test_every_figure_is_drawn_as_png_svg_and_pdf(root):
    assert set(made(root)) == {
        f"small_{name}.{ending}" for name in ("triptychs", "training") for ending in ("png", "svg", "pdf")
    }


def test_the_command_names_the_files_of_tables_and_figures(root):
    said = afno("visualize", "small", root=root).stdout
    assert "results/tiny/small.md, .csv, .tex;" in said
    assert "results/tiny/small_triptychs.png, .svg, .pdf\n" in said
    (found,) = answer("visualize", "small", root=root)
    assert {Path(file).name for file in found["files"]} == {
        *("small.md", "small.csv", "small.tex", "small_triptychs.png", "small_training.png")
    }
    assert all((root / file).is_file() for file in found["files"])


def test_report_redraws_the_same_bytes_from_the_records(root):
    before = made(root)
    for name in before:
        (root / "results/tiny" / name).unlink()
    afno("report", root=root)
    assert made(root) == before


def test_what_a_figure_is_drawn_from_stands_beside_its_record(root):
    arrays = np.load(root / "results/tiny/records/small/afno.triptychs.0.npz")
    assert {name: arrays[name].shape for name in arrays.files} == dict.fromkeys(
        ("masked", "rebuilt", "true"), (2, 16, 16, 3)
    )
    visible = (arrays["masked"] == arrays["true"]).all(-1)
    assert (arrays["rebuilt"] == arrays["true"]).all(-1)[visible].all()


def test_other_images_are_shown_and_the_unusable_ones_named_and_counted(root, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "whole.png")
    Image.fromarray(pixels[:8, :8]).save(tmp_path / "small.png")
    Image.fromarray(pixels[:, :, 0]).save(tmp_path / "grey.png")
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    done = afno("visualize", "small", "--images", str(tmp_path), "--out", str(tmp_path / "out"), root=root)
    assert "skipped 3 images" in done.stderr
    assert "grey.png: is L, not RGB" in done.stderr
    assert "small.png: is 8 x 8 pixels, at least 16 are needed a side" in done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"small_triptychs.{ending}" for ending in ("png", "svg", "pdf")
    }


def test_no_usable_image_is_missing_data(root, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    assert (
        "no image can be used, of 1"
        in afno("visualize", "small", "--images", str(tmp_path), root=root, expect=3).stderr
    )
    assert (
        "there is no such file or folder"
        in afno("visualize", "small", "--images", str(tmp_path / "none"), root=root, expect=3).stderr
    )


def test_a_run_s_folder_or_weights_file_can_be_shown(root, tmp_path):
    run = next((root / "runs").glob("pretrain-afno-*"))
    for source in (run, run / "weights.safetensors"):
        afno("visualize", "small", "--from", str(source), "--row", "afno", "--out", str(tmp_path), root=root)
    assert "needs one --row" in afno("visualize", "small", "--from", str(run), root=root, expect=2).stderr
    assert (
        "weights of another model"
        in afno("visualize", "small", "--from", str(run), "--row", "gfn", root=root, expect=2).stderr
    )


def test_a_run_is_shown_with_its_own_options_and_its_own_weights_alone(root, tmp_path):
    """Its weights in a file have the spec's, which is said."""
    write_spec(tmp_path, (root / "experiments/small.yaml").read_text())
    change = ("--set", "model.mixer.sparsity_threshold=1e9")  # leaves nothing of the spectrum
    afno("pretrain", "small", "--row", "afno", *change, root=tmp_path)
    run = next((tmp_path / "runs").glob("pretrain-afno-*"))
    spec = tmp_path / "experiments/small.yaml"
    spec.write_text(spec.read_text().replace("bias: identity", "bias: none"))
    shown, seen = ("visualize", "small", "--row", "afno", "--from"), {}
    for name, source in (("run", run), ("file", run / "weights.safetensors")):
        done = afno(*shown, str(source), "--out", str(tmp_path / name), root=tmp_path)
        assert done.returncode == 0
        seen[name] = (tmp_path / name / "small_triptychs.png").read_bytes()
    assert seen["run"] != seen["file"]
    run = run.rename(tmp_path / "mine")  # whatever it is called
    afno(*shown, str(run), "--out", str(tmp_path / "renamed"), root=tmp_path)
    other = next((root / "runs").glob("pretrain-afno-*")) / "weights.safetensors"
    (run / "weights.safetensors").write_bytes(other.read_bytes())
    assert "not the weights that were written" in afno(*shown, str(run), root=tmp_path, expect=7).stderr


def test_pictures_that_are_not_measured_have_no_table(root, tmp_path):
    run = next((root / "runs").glob("pretrain-afno-*"))
    shown = answer("visualize", "small", "--from", str(run), "--row", "afno", "--out", str(tmp_path), root=root)
    names = {f"small_triptychs.{ending}" for ending in ("png", "svg", "pdf")}
    assert {Path(file).name for file in shown["files"]} == {path.name for path in tmp_path.iterdir()} == names


def test_a_figure_without_a_finished_run_names_the_command_that_makes_it(root, tmp_path):
    Image.fromarray(np.zeros((20, 20, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    done = afno(
        "visualize", "small", "--images", str(tmp_path / "a.png"), "--runs", str(tmp_path / "none"), root=root, expect=3
    )
    assert "this makes it: afno visualize small --scale tiny --row gfn" in done.stderr


def test_a_spec_without_pictures_says_so(root, tmp_path):
    write_spec(tmp_path, SMALL)
    assert (
        "has nothing to show" in afno("visualize", "small", "--images", str(tmp_path), root=tmp_path, expect=2).stderr
    )


@pytest.mark.parametrize(
    ("task", "says"),
    [
        (
            "{name: clusters, layers: [1], clusters: 4, neighbours: 5, shown: 1, regions: segmentation, images: 2}",
            "at least 40 tokens are needed, 16 pixels give 16",
        ),
        ("{name: spectra, layers: [2], bins: 4, images: 2}", "the network has 1 AFNO layers"),
    ],
)
def test_a_network_that_cannot_be_shown_is_told_before_it_is_trained(tmp_path, task, says):
    stage = STAGE.replace("{name: triptychs, images: 2, walk: {grid: tokens, patch_size: 4, steps: 16}}", task)
    text = SMALL.replace("columns:\n", stage + "columns:\n", 1).replace(
        "train: null}", "train: null}\n    triptychs: null"
    )
    write_spec(tmp_path, text)
    for command in ("check", "run", "visualize"):
        assert (
            says
            in afno(
                command, "small", *(("--row", "afno") if command != "check" else ()), root=tmp_path, expect=2
            ).stderr
        )
    assert not (tmp_path / "runs").exists()


def test_without_a_finished_run_the_command_that_makes_it_is_named(tmp_path):
    write_spec(
        tmp_path,
        SMALL.replace("columns:\n", STAGE + "columns:\n", 1).replace(
            "train: null}", "train: null}\n    triptychs: null"
        ),
    )
    Image.fromarray(np.zeros((40, 40, 3), dtype=np.uint8)).save(tmp_path / "image.png")
    done = afno("visualize", "small", "--row", "afno", "--images", "image.png", root=tmp_path, expect=3)
    assert "this makes it: afno visualize small --scale tiny --row afno" in done.stderr

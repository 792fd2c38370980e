"""`afno export`: the file computes what the network computes, says what it is, and is right or not written."""

import hashlib
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.torch
import torch

from afno_repro.commands.export import exported
from afno_repro.config import ModelConfig, Part, digest
from afno_repro.errors import AfnoError, ConfigError, DataError, StorageError
from afno_repro.mixers import MIXERS
from afno_repro.models import build_model
from afno_repro.runs import export
from afno_repro.runs.record import Record
from afno_repro.runs.store import Store
from afno_repro.weights.checkpoint import read_state_dict
from afno_repro.weights.load import load_weights
from tests.command import afno, answer
from tests.mixers.test_contract import OPTIONS
from tests.specs import write_spec

SEGFORMER = {"embed_dims": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "mlp_ratio": 2, "learned_at": 32}
BACKBONES = {name: (Part("segformer", SEGFORMER), Part(name, OPTIONS[name])) for name in MIXERS} | {
    "swin": (
        Part(
            "swin",
            {
                "embed_dim": 8,
                "depths": [2, 2, 2, 1],
                "num_heads": [1, 2, 2, 4],
                "window": 7,
                "drop_path": 0.1,
                "final_norm": True,
            },
        ),
        None,
    ),
    "resnet": (Part("resnet", {"depth": 50}), None),
    "mobilenet_v2": (Part("mobilenet_v2", {}), None),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder in which one network was trained."""
    folder = tmp_path_factory.mktemp("export")
    write_spec(folder)
    afno("run", "small", "--scale", "smoke", "--row", "afno", "--device", "cpu", root=folder)
    return folder


@pytest.fixture(scope="module")
def told(root):
    """What is told of that network, exported by its digest to out/model.onnx."""
    digest = next((root / "runs").glob("pretrain-afno-*")).name[-12:]
    return export.export_run(digest, root / "out/model.onnx", Store(root / "runs"))


@pytest.fixture
def run(root, tmp_path):
    """A copy of the run's folder."""
    found = next((root / "runs").glob("pretrain-afno-*"))
    return shutil.copytree(found, tmp_path / found.name)


def record_of(run):
    return Record.from_json((run / "record.json").read_text())


def network_of(run):
    config = record_of(run).config
    net = build_model(config.model, config.data.image_size)
    load_weights(net, read_state_dict(run / "weights.safetensors"))
    return net.eval()


def predicted(file, images):
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(
        ["prediction"], {"images": images.numpy()}
    )[0]


@pytest.mark.parametrize("batch", [1, 3])
def test_the_file_computes_what_the_network_computes(told, run, batch):
    images = torch.randn(batch, 3, 16, 16, generator=torch.Generator().manual_seed(batch))
    with torch.no_grad():
        expected = network_of(run)(images).numpy()
    found = predicted(told.out, images)
    assert found.shape == (batch, 3, 16, 16)
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def test_the_file_says_which_run_it_is_and_how_images_are_prepared(told, run):
    model = onnx.load(told.out)
    onnx.checker.check_model(model, full_check=True)
    said, record = {each.key: each.value for each in model.metadata_props}, record_of(run)
    assert said["digest"] == record.digest == hashlib.sha256(said.pop("config").encode()).hexdigest()[:12]
    assert (said["run"], said["task"], said["backbone"], said["mixer"], said["image_size"]) == (
        record.run_id,
        "inpainting",
        "vit",
        "afno",
        "16",
    )
    assert "mean colour of its visible pixels" in said["input"]


def test_the_file_stands_alone_and_names_no_folder_of_the_machine(told):
    data = Path(told.out).read_bytes()
    assert [path.name for path in Path(told.out).parent.iterdir()] == ["model.onnx"]
    assert b"/" + os.fsencode(torch.__file__).split(b"/")[1] + b"/" not in data
    assert b".py" not in data


def test_what_is_told_is_what_was_written(told, run, monkeypatch, capsys):
    assert (told.run, told.bytes) == (record_of(run).run_id, Path(told.out).stat().st_size)
    assert told.inputs == {"images": ["batch", 3, 16, 16]}
    assert told.outputs == {"prediction": ["batch", 3, 16, 16]}
    assert 0 <= told.difference <= 1e-4
    monkeypatch.setattr(export, "export_run", lambda *_: told)
    exported("", Path(), Path()).show()
    shown = capsys.readouterr().out
    for words in (
        "model.onnx: 0.0",
        f"opset {told.opset}",
        "input images: batch x 3 x 16 x 16",
        "output prediction: batch x 3 x 16 x 16",
        "largest difference",
    ):
        assert words in shown


def test_a_folder_names_a_run_as_its_digest_does_and_the_same_run_gives_the_same_bytes(told, root, run, tmp_path):
    found = answer("export", str(run), "--out", "a.onnx", root=tmp_path)
    assert (tmp_path / "a.onnx").read_bytes() == Path(told.out).read_bytes()
    assert found == {**asdict(told), "out": "a.onnx"}
    store = Store(root / "runs")
    assert export.find_run(run.name, store) == export.find_run(run.name[-12:], store)


@pytest.mark.parametrize("named", ["", "nothing", "*", "../runs", "[0-9a-f]", "-" + "0" * 12, "x" * 5000])
def test_a_name_of_no_run_is_refused(root, tmp_path, named):
    with pytest.raises(DataError, match="there is no run"):
        export.export_run(named, tmp_path / "a.onnx", Store(root / "runs"))


def test_what_has_no_finished_network_is_refused(root, run):
    store = Store(root / "runs")
    with pytest.raises(ConfigError, match="a profile run has no network"):
        export.find_run(next((root / "runs").glob("profile-*")).name, store)
    record = record_of(run)
    (run / "record.json").write_text(replace(record, outcome="diverged").to_json())
    with pytest.raises(DataError, match="its outcome is diverged"):
        export.find_run(str(run), store)
    (run / "record.json").unlink()
    with pytest.raises(DataError, match="holds no finished run"):
        export.find_run(str(run), store)


@pytest.mark.parametrize("out", ["model.pt", "model", "onnx", ".onnx", "model.onnx.tmp"])
def test_a_file_of_another_ending_is_refused(root, run, out):
    with pytest.raises(ConfigError, match=r"must end in \.onnx"):
        export.export_run(str(run), run / out, Store(root / "runs"))


def test_weights_with_a_flipped_bit_are_refused(root, run):
    path = run / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(StorageError, match="not the weights that were written"):
        export.export_run(str(run), run / "a.onnx", Store(root / "runs"))
    assert not (run / "a.onnx").exists()


def test_another_network_and_one_that_is_not_finite_are_seen(told, run):
    data, net = Path(told.out).read_bytes(), network_of(run)
    assert export.compared(net, data, 16)[0] <= 1e-6
    with torch.no_grad():
        net.head.project.bias[0] += 1e-2
        assert export.compared(net, data, 16)[0] > 1e-3
        net.head.project.bias[0] = torch.nan
        assert np.isnan(export.compared(net, data, 16)[0])


@pytest.mark.parametrize("difference", [2e-4, float("inf"), float("nan")])
def test_a_file_that_computes_something_else_is_not_written(told, root, run, monkeypatch, difference):
    model = onnx.load(told.out)
    monkeypatch.setattr(export, "translated", lambda net, record: model)
    monkeypatch.setattr(export, "compared", lambda net, data, image_size: (difference, None))
    with pytest.raises(AfnoError, match="nothing was written"):
        export.export_run(str(run), run / "a.onnx", Store(root / "runs"))
    assert not (run / "a.onnx").exists()


def test_a_file_that_onnxruntime_cannot_run_is_told(told, run):
    with pytest.raises(AfnoError, match=r"onnxruntime [\d.]+ cannot run the file"):
        export.compared(network_of(run), Path(told.out).read_bytes()[:-100], 16)


def small(record, backbone, mixer, size=16):
    """The record of a small network, and the network, its head not zero."""
    config = replace(record.config, model=ModelConfig(backbone, mixer, Part("linear_segmentation", {"num_classes": 3})))
    torch.manual_seed(0)
    return replace(record, config=replace(config, data=replace(config.data, image_size=size))), build_model(
        config.model, size
    ).eval()


@pytest.mark.parametrize("name", sorted(MIXERS))
def test_every_mixer_is_exported(run, name):
    backbone = Part("vit", {"patch_size": 4, "embed_dim": 8, "depth": 1, "mlp_ratio": 2, "skips": 2})
    record, net = small(record_of(run), backbone, Part(name, OPTIONS[name]), size=20)
    assert export.compared(net, export.translated(net, record).SerializeToString(), 20)[0] <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_segformer_with_every_such_mixer_and_every_trunk_is_exported(run, name):
    record, net = small(record_of(run), *BACKBONES[name], size=64)
    assert export.compared(net, export.translated(net, record).SerializeToString(), 64)[0] <= 1e-5


def test_a_mixer_that_cannot_be_exported_leaves_no_file(root, run, monkeypatch):
    monkeypatch.setattr(
        torch.compiler, "is_compiling", lambda: False
    )  # FFTs, of which the exporter knows no complex one
    record = record_of(run)
    record, net = small(record, record.config.model.backbone, Part("fno", OPTIONS["fno"]))
    safetensors.torch.save_file(
        {name: value.contiguous() for name, value in net.state_dict().items()}, run / "weights.safetensors"
    )
    provenance = {key: value for key, value in record.provenance.items() if key != "weights"}
    (run / "record.json").write_text(replace(record, digest=digest(record.config), provenance=provenance).to_json())
    before = sorted(run.iterdir())
    with pytest.raises(ConfigError, match="fno cannot be exported") as error:
        export.export_run(str(run), run / "a.onnx", Store(root / "runs"))
    assert error.value.exit_code == 2
    assert sorted(run.iterdir()) == before


@pytest.mark.parametrize("module", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_with_the_extra_that_brings_it(root, tmp_path, module):
    (tmp_path / f"{module}.py").write_text(f"raise ModuleNotFoundError('No module named {module}', name='{module}')")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    done = afno("export", "0" * 12, "--out", "a.onnx", root=root, env=environment, expect=3)
    assert f"the package {module} is not installed\n  pip install 'afno_repro[export]'" in done.stderr

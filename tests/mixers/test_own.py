import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from afno_repro.backbones.layers import MLP
from afno_repro.config import ModelConfig, Part
from afno_repro.errors import ConfigError
from afno_repro.mixers import MIXERS
from afno_repro.mixers.contract import PROMISES, broken_promises
from afno_repro.mixers.own import own_mixer
from afno_repro.models import build_model, check_model, check_own_mixer
from afno_repro.profiling.flops import count
from tests.command import afno, python_path, with_path
from tests.mixers import mine
from tests.mixers.test_contract import DIM, OPTIONS
from tests.profiling.test_flops import ONE_PRODUCT
from tests.specs import SMALL, write_spec

PROMISED = list(PROMISES)
BROKEN = {
    "OtherShape": "keeps shape",
    "OtherPrecision": "keeps shape",
    "UnusedWeight": "gives its input and each weight",
    "NotFinite": "gives its input and each weight",
    "InPlace": "leaves its input",
    "Random": "computes the same",
    "Unseeded": "starts from the same weights",
    "AcrossImages": "mixes each image",
    "SharedByCopies": "can be copied",
    "HiddenState": "is restored",
    "NoHalf": "runs under autocast",
    "LooksAtValues": "runs on the meta device",
}


def model(name, **options):
    backbone = {"patch_size": 4, "embed_dim": 8, "depth": 2, "mlp_ratio": 2, "skips": 2}
    return ModelConfig(Part("vit", backbone), Part(f"tests.mixers.mine:{name}", options), Part("inpainting", {}))


@pytest.mark.parametrize("grid", [(8, 8), (5, 7), (33, 32)])
@pytest.mark.parametrize("name", sorted(MIXERS))
def test_every_mixer_of_the_package_keeps_the_promises(name, grid):
    assert broken_promises(partial(MIXERS[name], **OPTIONS[name]), DIM, grid) == []


def test_a_sound_mixer_keeps_the_promises_and_the_order_of_random_numbers():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    check_own_mixer(model("Sound", bias=True), 32)
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize(("name", "promise"), BROKEN.items())
def test_a_broken_promise_is_named(name, promise):
    with pytest.raises(ConfigError, match=f"tests.mixers.mine:{name} is no token mixer") as error:
        check_own_mixer(model(name, bias=True), 32)
    (problem,) = error.value.problems
    assert problem.key == ("mixer", "name")
    assert any(line.strip().startswith(promise) for line in problem.message.splitlines()[1:])


@pytest.mark.parametrize(
    ("name", "kind", "at"),
    [("Misspelt", "AttributeError", "self.projekt(x)"), ("WrongWidth", "RuntimeError", "self.project(x + x.mean")],
)
def test_what_its_code_raises_is_told_once_with_file_and_line(name, kind, at):
    (number,) = [i for i, line in enumerate(Path(mine.__file__).read_text().splitlines(), 1) if at in line]
    for grid in ((4, 4), (5, 7)):
        (told,) = broken_promises(partial(getattr(mine, name), bias=True), 8, grid)
        assert f"{kind} at {mine.__file__}:{number}: " in told


def test_what_its_code_does_not_raise_itself_is_told_once_too():
    with pytest.raises(ConfigError) as error:
        check_own_mixer(model("NoForward"), 32)
    (problem,) = error.value.problems
    assert problem.message.count("NotImplementedError") == 1
    assert ".py:" not in problem.message


def test_every_promise_has_a_mixer_that_breaks_it():
    assert all(any(promise.startswith(start) for start in BROKEN.values()) for promise in PROMISED)


def test_a_limit_of_its_own_counts_for_the_grid_of_the_network_alone():
    broken = broken_promises(partial(mine.OwnLimit, bias=True), 8, (20, 20))
    assert len(broken) == len(PROMISES)
    assert broken_promises(partial(mine.OwnLimit, bias=True), 8, (40, 40)) == []


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("tests.mixers.mine:Souns", "has no nn.Module 'Souns'.*Did you mean 'Sound'"),
        ("tests.mixers.mine:NoMixer", "has no nn.Module 'NoMixer'"),
        ("tests.mixers.yours:Sound", "there is no module 'tests.mixers.yours'.*PYTHONPATH names in full"),
        ("tests.mixers.mine:Untyped", "its option 'bias' has no type"),
        ("tests.mixers.mine:Keywords", r"it takes \*\*options: int, so that its options are not known"),
        ("tests.mixers.mine:OtherOrder", r"its first arguments are \(grid, dim\), not \(dim, grid\)"),
        ("tests mixers:Sound", "is no dotted path"),
        ("../mine:Sound", "is no dotted path"),
        (":Sound", "is no dotted path"),
        ("tests.mixers.mine:", "is no dotted path"),
    ],
)
def test_what_is_no_mixer_is_refused_with_the_reason(name, told):
    with pytest.raises(ConfigError, match=f"(?s){told}"):
        own_mixer(name)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import nowhere_to_be_found", "there is no module 'nowhere_to_be_found'\n  broken_module imports it"),
        ("1 / 0", r"broken_module cannot be imported \(ZeroDivisionError: division by zero\)"),
        ("def (:", r"broken_module cannot be imported \(SyntaxError"),
        ("raise SystemExit(3)", r"broken_module cannot be imported \(SystemExit: 3\)"),
    ],
)
def test_a_module_that_cannot_be_imported_says_why(text, told, tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=told):
        own_mixer("broken_module:Mixer")
    sys.modules.pop("broken_module", None)


def test_its_options_are_held_to_its_signature():
    for options, told in (({"bias": 3}, "must be true or false"), ({}, "needs the option 'bias'")):
        with pytest.raises(ConfigError, match=told):
            check_model(model("Sound", **options), 32)
    with pytest.raises(ConfigError, match=r"has no option 'biass'\n.*Did you mean 'bias'"):
        check_model(model("Sound", bias=True, biass=False), 32)


def test_its_operations_are_counted_as_those_of_other_mixers_are(monkeypatch):
    with torch.device("meta"):
        counted = count(build_model(model("Sound", bias=False), 32), 32, ONE_PRODUCT)
    assert counted.mixer_gflops * 1e9 == pytest.approx(2 * 64 * 8 * 8)  # two layers, 64 tokens, a matrix of 8 x 8
    assert counted.mixer_params == 2 * 8 * 8
    assert counted.mlp_gflops * 1e9 == pytest.approx(2 * 64 * 2 * 2 * 8 * 8)
    monkeypatch.setattr(mine.Sound, "__init__", with_mlp)
    monkeypatch.setattr(mine.Sound, "forward", lambda self, x: self.project(x))
    with torch.device("meta"):
        inside = count(build_model(model("Sound", bias=False), 32), 32, ONE_PRODUCT)
    assert inside.mlp_gflops == counted.mlp_gflops  # an MLP inside a mixer is the mixer's
    assert inside.mixer_gflops * 1e9 == pytest.approx(2 * 64 * 2 * 8 * 8)


def with_mlp(self, dim: int, grid: tuple[int, int], bias: bool):
    torch.nn.Module.__init__(self)
    self.project = MLP(dim, 1)


MODULE = """
from pathlib import Path
from torch import Tensor, nn
from own_mixers.parts import FACTOR

Path(__file__).with_name("imported").touch()

class Mean(nn.Module):
    def __init__(self, dim: int, grid: tuple[int, int], bias: bool):
        super().__init__()
        self.project = nn.Linear(dim, dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + FACTOR * self.project(x.mean(1, keepdim=True) + x.mean(2, keepdim=True))
"""
ROW = """\
  - key: mean
    title: [ViT, mean]
    model: {mixer: {name: "own_mixers.mean:Mean", bias: true}}
  - key: fill_mean
"""


def make_own(folder):
    package = folder / "own_mixers"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "mean.py").write_text(MODULE)
    (package / "parts.py").write_text("FACTOR = 2.0\n")
    return package


def test_a_mixer_of_pythonpath_is_checked_run_and_known_by_its_source(tmp_path):
    root, package = tmp_path / "root", make_own(tmp_path / "elsewhere")
    write_spec(root, SMALL.replace("  - key: fill_mean\n", ROW))
    env = with_path(tmp_path / "elsewhere")
    asked = ("--scale", "smoke", "--row", "mean", "--row", "gfn", "--jobs", "1")
    assert "sound" in afno("check", "small", root=root, env=env).stdout
    (package / "imported").unlink()
    afno("run", "small", *asked, root=root, env=env)
    (package / "imported").unlink()
    records = {path.parent.name: json.loads(path.read_text()) for path in root.glob("runs/*/record.json")}
    sources = {name.split("-")[1]: record["provenance"]["source"] for name, record in records.items()}
    assert sources["mean"] != sources["gfn"]

    def others():
        return json.loads(afno("list", "--scale", "smoke", "--json", root=root, env=env).stdout)[0]["other_source"]

    assert others() == 0
    (package / "mean.py").write_text(MODULE + "\n# a comment\n")
    assert others() == 0
    (package / "parts.py").write_text("FACTOR = 3.0\n")
    assert others() == 2  # cost and pretraining of the one row
    assert not (package / "imported").exists()  # a list imports no mixer
    (elsewhere,) = json.loads(afno("list", "--scale", "smoke", "--json", root=root).stdout)
    assert (elsewhere["yours"], elsewhere["other_source"], elsewhere["no_source"]) == (4, 0, 2)
    said = afno("list", "--scale", "smoke", root=root).stdout
    assert "other source" not in said
    assert "the module of a mixer of one's own is not found" in said
    told = afno("run", "small", *asked, root=root, env=env).stderr
    assert "made by other source than today's" in told
    assert "gfn" not in told.partition("other source")[2].partition("\n")[0]
    afno("run", "small", *asked, "--rerun", root=root, env=env)
    assert others() == 0


def test_a_module_that_a_mixer_s_imports_from_beside_it_is_part_of_its_source(tmp_path):
    for name, text in (
        ("mixer", "import torch, helper\n"),
        ("helper", "from deeper.part import X\n"),
        ("apart", "Y = 1\n"),
    ):
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper/part.py").write_text("X = 1\n")
    script = "from afno_repro.runs.source import _own_hash; print(_own_hash('mixer'))"

    def known():
        command = [sys.executable, "-c", script]
        return subprocess.run(command, env=python_path(tmp_path), capture_output=True, text=True, check=True).stdout

    before = known()
    (tmp_path / "apart.py").write_text("Y = 2\n")
    assert known() == before
    (tmp_path / "deeper/part.py").write_text("X = 2\n")
    assert known() != before


def test_nothing_is_imported_from_the_current_folder(tmp_path):
    make_own(tmp_path)
    write_spec(tmp_path, SMALL.replace("  - key: fill_mean\n", ROW))
    for env in (None, python_path(""), python_path(".")):
        told = afno("check", "small", root=tmp_path, expect=2, **({} if env is None else {"env": env})).stderr
        assert "there is no module 'own_mixers'" in told
        assert "small.yaml" in told
    assert "sound" in afno("check", "small", root=tmp_path, env=python_path(tmp_path)).stdout


def test_weights_evaluated_through_an_edited_mixer_replace_nothing_and_are_told(tmp_path):
    root, package = tmp_path / "root", make_own(tmp_path / "elsewhere")
    write_spec(root, SMALL.replace("  - key: fill_mean\n", ROW))
    asked = ("small", "--scale", "smoke", "--row", "mean", "--device", "cpu")
    env = with_path(tmp_path / "elsewhere")
    afno("run", *asked, root=root, env=env)
    table = root / "runs/smoke/small.csv"
    measured = table.read_text()
    same = afno("evaluate", *asked, root=root, env=env)
    assert "other source" not in same.stderr
    (package / "parts.py").write_text("FACTOR = 30.0\n")
    edited = afno("evaluate", *asked, root=root, env=env)
    assert edited.stdout != same.stdout
    assert "made by other source than today's, afno run --rerun does them again: pretrain-mean-" in edited.stderr
    assert table.read_text() == measured

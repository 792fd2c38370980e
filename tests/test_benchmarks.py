"""What the benchmarks compare computes the same."""

import argparse
import copy
import json
import weakref
from types import SimpleNamespace

import pytest
import torch

from afno_repro.backbones.layers import Block
from afno_repro.mixers import afno as afno_module
from afno_repro.mixers.afno import AFNO
from afno_repro.mixers.gfn import GFN
from afno_repro.mixers.long_short import LongShort
from afno_repro.models import build_model
from benchmarks import compiled, side_by_side, steps, train, trained
from benchmarks import mixers as side
from benchmarks.deterministic import refused
from benchmarks.literal import LiteralAFNO, LiteralGFN, LiteralLongShort
from benchmarks.mixers import SHAPES, Shape, floor_flops, mixers, saved_units
from benchmarks.rates import Rates
from benchmarks.side_by_side import paced
from benchmarks.steps import Roofline


@pytest.mark.parametrize("grid", [(6, 8), (5, 7), (7, 6)])
def test_the_literal_layer_is_afno(grid):
    torch.manual_seed(0)
    afno = AFNO(12, grid, num_blocks=3, sparsity_threshold=0.05, keep=1.0, bias="identity", init_std=0.5).double()
    x = torch.randn(2, *grid, 12, dtype=torch.float64, requires_grad=True)
    weights = [x, afno.w1, afno.b1, afno.w2, afno.b2]
    ours, theirs = (torch.autograd.grad(mixer(x).square().sum(), weights) for mixer in (afno, LiteralAFNO(afno)))
    torch.testing.assert_close(LiteralAFNO(afno)(x), afno(x))
    torch.testing.assert_close(theirs, ours)


def test_literal_gfn_and_long_short_are_ours():
    torch.manual_seed(0)
    x = torch.randn(2, 6, 8, 12, dtype=torch.float64)
    gfn = GFN(12, (6, 8), init_std=0.02).double()
    z = torch.fft.rfft2(x, dim=(1, 2)) * torch.view_as_complex(gfn.filter)
    torch.testing.assert_close(LiteralGFN(gfn)(x), gfn(x))
    torch.testing.assert_close(torch.fft.irfft2(z, s=(6, 8), dim=(1, 2)), gfn(x))
    for grid in ((6, 8), (7, 5)):
        ours, literal = (
            kind(12, grid, num_heads=2, window=4, rank=3).double() for kind in (LongShort, LiteralLongShort)
        )
        literal.load_state_dict(ours.state_dict())
        x = torch.randn(2, *grid, 12, dtype=torch.float64)
        torch.testing.assert_close(literal(x), ours(x))


def test_all_mixers_of_a_benchmark_take_the_same_tokens():
    shape = SHAPES[4]._replace(side=8)
    x = torch.randn(1, 8, 8, shape.dim)
    assert {mixer(x).shape for mixer in mixers(shape).values()} == {x.shape}


def test_what_is_kept_for_the_backward_pass_counts_each_memory_once():
    x = torch.randn(1, 4, 4, 8)
    assert saved_units(torch.nn.Sequential(torch.nn.Tanh(), torch.nn.Tanh()), x) == 2


def test_the_floor_of_one_block_is_a_whole_product():
    shape = SHAPES[6]
    product = 16 * shape.dim**2 * shape.side * (shape.side // 2 + 1)
    assert product < floor_flops(shape, 1) < 2 * product


@pytest.mark.parametrize(("side_of", "large"), [(64, set()), (128, {"self-attention"}), (256, set(side.MOST_TOKENS))])
def test_attention_is_held_to_float64_where_its_scores_are_few_on_any_device(side_of, large):
    names = {*mixers(SHAPES[4]._replace(side=8)), "self-attention, bf16"}
    found = {name for name in names if not side.small(name, Shape(side_of, 64, 1))}
    assert {name for name in found if "," not in name} == large
    assert ("self-attention, bf16" in found) == ("self-attention" in found)


def test_the_usual_layer_is_compiled_whole_and_held_to_itself_as_it_is(monkeypatch):
    compiled, compiler = [], torch.nn.Module.compile

    def quickly(module, **options):
        compiled.append((type(module), options["fullgraph"]))
        compiler(module, **options, backend="eager")

    monkeypatch.setattr(torch.nn.Module, "compile", quickly)
    afno = AFNO(8, (6, 5), num_blocks=2, sparsity_threshold=0.01, keep=1.0, bias="identity", init_std=0.02)
    rival = side.compiled_literal(afno)
    assert side.error(rival, torch.randn(1, 6, 5, 8)) <= side.TOLERANCE
    assert compiled == [(LiteralAFNO, True)]
    assert rival._compiled_call_impl is not None
    assert copy.deepcopy(rival)._compiled_call_impl is None
    assert side.EXACT.search("literal AFNO, compiled")


def test_a_table_of_mixers_is_written_after_every_shape(tmp_path, monkeypatch):
    written = []

    def measured(shape, *_):
        written.append(len((tmp_path / "mixers.csv").read_text().splitlines()) - 1 if written else 0)
        return [[str(shape), "AFNO", "1.0", "1.0", *[""] * (len(side.HEADER) - 4)]]

    monkeypatch.setattr(side_by_side, "RESULTS", tmp_path)
    monkeypatch.setattr(side, "device_name", lambda device: "")
    monkeypatch.setattr(side, "measured", measured)
    monkeypatch.setattr("sys.argv", ["mixers", "--shapes", "3"])
    side.main()
    assert written == [0, 1, 2]


def test_every_precision_has_a_table_of_mixers_and_the_first_shapes_a_compiled_rival(tmp_path, monkeypatch):
    asked = []

    def measured(shape, batch, rounds, device, compiled, precision):
        asked.append((shape.side, precision, compiled))
        return [[precision, "AFNO", "1.0", "1.0", *[""] * (len(side.HEADER) - 4)]]

    monkeypatch.setattr(side_by_side, "RESULTS", tmp_path)
    monkeypatch.setattr(side, "device_name", lambda device: "")
    monkeypatch.setattr(side, "measured", measured)
    monkeypatch.setattr("sys.argv", ["mixers", "--shapes", "2", "--compiled", "1", "--precision", "float32", "bf16"])
    side.main()
    both = ("float32", "bf16")
    assert asked == [(s.side, p, s is SHAPES[0] and p == both[0]) for s in SHAPES[:2] for p in both]
    for name, precision in (("mixers", "float32"), ("mixers_bf16", "bf16")):
        rows = (tmp_path / f"{name}.csv").read_text().splitlines()[1:]
        assert [row.split(",")[0] for row in rows] == [precision] * 2


def test_what_a_mixer_keeps_is_counted_and_let_go(monkeypatch):
    made, x = [], torch.randn(1, 8, 8, 64)
    keeps = torch.autograd.graph.saved_tensors_hooks

    def hooks(pack, unpack):
        return keeps(lambda tensor: made.append(weakref.ref(tensor)) or pack(tensor), unpack)

    monkeypatch.setattr(torch.autograd.graph, "saved_tensors_hooks", hooks)
    assert saved_units(LongShort(64, (8, 8), num_heads=4, window=4, rank=8), x) > 1
    assert made
    assert [each for each in made if each() is not None and not isinstance(each(), torch.nn.Parameter)] == []


def test_a_mixer_without_memory_is_told_and_the_others_are_measured(monkeypatch):
    both, shape = side.both, SHAPES[2]._replace(side=4)

    def lacking(mixer, x, precision):
        if isinstance(mixer, LongShort):
            raise MemoryError
        both(mixer, x, precision)

    monkeypatch.setattr(side, "both", lacking)
    lines = {line[1]: line for line in side.measured(shape, 1, 1, torch.device("cpu"), False, "float32")}
    assert set(lines) == set(mixers(shape))
    assert [name for name, line in lines.items() if line[2] == "out of memory"] == ["literal long-short", "long-short"]
    assert {len(line) for line in lines.values()} == {len(side.HEADER)}


def test_a_mixers_error_is_that_of_its_precision_on_the_first_image():
    torch.manual_seed(0)
    mixer, x = torch.nn.Linear(64, 64), torch.randn(2, 4, 4, 64)
    assert side.error(mixer, x) < 1e-6 < 1e-4 < side.error(mixer, x, "bf16") < side.LOOSE
    x[1] = float("nan")
    assert side.error(mixer, x) < 1e-6


def test_a_training_step_is_measured_on_the_device_asked_for(tmp_path, monkeypatch):
    """On the meta device, where nothing is computed."""
    devices = []
    monkeypatch.setattr(train, "check", lambda task, batch: None)
    monkeypatch.setattr(train, "device_name", lambda device: device)
    monkeypatch.setattr(train, "make_optimizer", lambda model, recipe: devices.append(next(model.parameters()).device))
    monkeypatch.setattr(train, "timed", lambda steps, rounds, device: devices.append(device) or {})
    monkeypatch.setattr(side_by_side, "RESULTS", tmp_path)
    monkeypatch.setattr("sys.argv", ["train", "--device", "meta"])
    train.main()
    assert set(devices) == {torch.device("meta")}
    assert len(devices) == 2 + len(train.MIXERS)
    assert (tmp_path / "meta/train.md").is_file()


def test_a_steps_prediction_is_what_its_operators_take_at_the_devices_rates():
    at = Rates(1e9, {"float32": 1e9, "tf32": 2e9, "bf16": 4e9, "complex64": 1e9})
    a = torch.randn(64, 64)
    bytes_of = a.nbytes / 1e9
    for call, seconds in (
        (lambda: a + 1, 2 * bytes_of),
        (lambda: a @ a, 2 * 64**3 / 1e9),
        (lambda: a.bfloat16() @ a.bfloat16(), 2 * 1.5 * bytes_of + 2 * 64**3 / 4e9),
        (lambda: a.cfloat() @ a.cfloat(), 2 * 3 * bytes_of + 8 * 64**3 / 1e9),
        (lambda: a.view(32, 128).mT, 0.0),
    ):
        with Roofline(at, "float32") as roofline:
            call()
        assert roofline.seconds == pytest.approx(seconds)
    with Roofline(at, "tf32") as roofline:
        torch.nn.functional.linear(a[:2].requires_grad_(), a).sum().backward()
    assert roofline.seconds > 2 * 2 * 2 * 64**2 / 2e9


def network(row="afno"):
    """A row of Table 2 at smoke size, with a head that is not zero."""
    config = steps.configs("table2", "smoke")[row]
    torch.manual_seed(0)
    model = build_model(config.model, config.data.image_size).double()
    for parameter in model.get_submodule("head").parameters():
        torch.nn.init.normal_(parameter)
    return config, model


@pytest.mark.parametrize("form", steps.FORMS)
def test_a_network_in_another_form_is_the_same_network(monkeypatch, form):
    if form == "kernel":
        pytest.importorskip("triton")
    monkeypatch.setattr(afno_module, "prefers_products", lambda x, modes: False)  # as on a GPU
    config, model = network()
    side, taken = config.data.image_size, copy.deepcopy(model)
    steps.take(form, taken, "bf16")
    images = torch.randn(2, 3, side, side, dtype=torch.float64)
    torch.testing.assert_close(taken(images), model(images))
    assert [p.shape for p in taken.parameters()] == [p.shape for p in model.parameters()]
    (mixer,) = (block.mixer for block in taken.modules() if isinstance(block, Block))
    assert isinstance(mixer, AFNO) == (form != "kernel")
    assert ("by_transforms" in vars(mixer)) == (form == "products")


def test_forms_are_those_that_a_row_a_precision_and_a_device_have():
    (afno, _), (gfn, _) = network("afno"), network("gfn")
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert steps.forms(gfn, "bf16", gpu) == ("as trained",)
    assert steps.forms(afno, "bf16", cpu) == steps.forms(afno, "float32", gpu) == ("as trained", "products")
    assert steps.forms(afno, "tf32", gpu) == ("as trained", "products", "kernel")


def test_operations_without_a_deterministic_form_are_named_and_allowed_afterwards():
    x = torch.zeros(3)

    def put():
        x.put_(torch.tensor([0, 1]), torch.ones(2))

    assert refused(put) == ["put_"]
    assert refused(put) == ["put_"]  # not the first time alone
    assert refused(lambda: x + 1) == []
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("changes", [(), ("--set", "pretrain.train.epochs=1")])
def test_trainings_are_read_where_the_command_puts_them(tmp_path, monkeypatch, changes):
    def run(command, check):
        folder = tmp_path / f"results/{'custom/tiny' if changes else 'tiny'}/records/table2"
        folder.mkdir(parents=True)
        record = {"outcome": "ok", "metrics": {"psnr": 1.5}}
        (folder / "afno.pretrain.0.json").write_text(json.dumps(record))
        assert command[-2:] == ["--root", str(tmp_path)]
        return SimpleNamespace(returncode=4)

    monkeypatch.setattr(trained.subprocess, "run", run)
    monkeypatch.setattr(side_by_side, "RESULTS", tmp_path / "tables")
    monkeypatch.setattr("sys.argv", ["trained", "--device", "cpu", "--root", str(tmp_path), *changes])
    with pytest.raises(SystemExit) as left:
        trained.main()
    assert left.value.code == 4
    (table,) = (tmp_path / "tables").glob("*/trained_tiny.csv")
    row, seeds, reference, measured, inside = table.read_text().splitlines()[1].split(",")
    assert (row, seeds, measured) == ("afno", "1", "1.50")
    assert (reference == "", inside) == ((True, "") if changes else (False, "no"))


def test_nothing_is_begun_that_takes_longer_than_the_time_left(monkeypatch):
    now = iter([0.0, 0.0, 4.0, 4.0, 7.0, 7.0, 8.0, 8.0, 8.0])  # the start, then each case's start and end
    monkeypatch.setattr(side_by_side.time, "monotonic", lambda: next(now))
    assert list(paced("abcd", 10.0)) == [("a", True), ("b", True), ("c", False), ("d", False)]


def test_how_rows_were_compiled_is_told_and_one_that_failed_fails_all(tmp_path, monkeypatch):
    monkeypatch.setattr(side_by_side, "RESULTS", tmp_path)
    ends = {"gfn": compiled.COMPILED, "afno": compiled.NO_TIME, "long_short": "failed with 1"}
    monkeypatch.setattr(
        compiled, "compile_alone", lambda table, row, n, *_: [table, row, "", str(n), ends[row], "", ""]
    )
    asked = argparse.Namespace(backend="eager")
    for rows, code in ((("gfn", "afno"), False), (("gfn", "long_short"), True)):
        with pytest.raises(SystemExit) as left:
            compiled.compile_all([("table2", row, 2) for row in rows], asked, "cpu")
        assert left.value.code is code
        assert compiled.ready(tmp_path) == {("table2", "gfn")}

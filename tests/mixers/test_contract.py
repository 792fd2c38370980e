"""What every mixer of MIXERS promises, whatever it computes."""

import copy
import inspect
import pickle

import pytest
import torch
from torch._subclasses import FakeTensorMode

from afno_repro.mixers import MIXERS

OPTIONS = {
    "self_attention": {"num_heads": 2},
    "long_short": {"num_heads": 2, "window": 2, "rank": 2},
    "gfn": {"init_std": 0.02},
    "efficient_self_attention": {"num_heads": 2, "reduction": 2},
    "fno": {"modes": [2, 3], "init_std": 0.5},
    "afno_static": {"num_blocks": 2, "sparsity_threshold": 0.001, "modes": [3, 2], "bias": "identity", "init_std": 0.5},
    "afno": {"num_blocks": 2, "sparsity_threshold": 0.001, "keep": 1.0, "bias": "conv", "init_std": 0.5},
}
DIM = 8


def build(name, grid):
    torch.manual_seed(0)
    return MIXERS[name](DIM, grid, **OPTIONS[name])


@pytest.fixture(params=sorted(MIXERS))
def name(request):
    return request.param


@pytest.mark.parametrize("grid", [(8, 8), (5, 7), (6, 9), (1, 4), (3, 1)])
def test_shape_and_type_are_kept(name, grid):
    x = torch.randn(2, *grid, DIM)
    y = build(name, grid)(x)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)


def test_every_parameter_and_the_input_get_a_finite_gradient(name):
    mixer, x = build(name, (6, 6)), torch.randn(2, 6, 6, DIM, requires_grad=True)
    mixer(x).square().sum().backward()
    for key, value in [*mixer.named_parameters(), ("x", x)]:
        assert value.grad is not None, key
        assert torch.isfinite(value.grad).all(), key
        assert value.grad.abs().sum() > 0, key


def test_without_gradients_the_output_is_the_same_and_the_input_as_it_was(name):
    mixer, x = build(name, (6, 7)), torch.randn(2, 6, 7, DIM)
    before = x.clone()
    with torch.no_grad():
        y = mixer(x)
    torch.testing.assert_close(y, mixer(x))
    assert torch.equal(x, before)


def test_a_batch_equals_its_items(name):
    mixer, x = build(name, (5, 6)).double(), torch.randn(3, 5, 6, DIM, dtype=torch.float64)
    torch.testing.assert_close(mixer(x), torch.cat([mixer(item[None]) for item in x]))


def test_autocast_and_half_inputs_stay_close(name):
    mixer, x = build(name, (6, 7)), torch.randn(2, 6, 7, DIM)
    with torch.autocast("cpu", torch.bfloat16):
        y = mixer(x)
        half = mixer(x.bfloat16())
    torch.testing.assert_close(y.float(), mixer(x), atol=0.1, rtol=0.1)
    torch.testing.assert_close(half.float(), mixer(x), atol=0.1, rtol=0.1)


def test_state_dict_round_trip(name):
    mixer, other, x = build(name, (4, 4)), build(name, (4, 4)), torch.randn(1, 4, 4, DIM)
    for p in other.parameters():
        torch.nn.init.normal_(p)
    other.load_state_dict(mixer.state_dict())
    torch.testing.assert_close(other(x), mixer(x), rtol=0, atol=0)


def test_it_runs_on_a_larger_grid_than_it_was_made_for(name):
    x = torch.randn(1, 8, 12, DIM)
    assert build(name, (4, 4))(x).shape == x.shape


def test_it_starts_with_dim_and_grid_and_no_option_has_a_default(name):
    parameters = list(inspect.signature(MIXERS[name]).parameters.values())
    assert [p.name for p in parameters[:2]] == ["dim", "grid"]
    assert all(p.default is inspect.Parameter.empty for p in parameters)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("grid", [(6, 7), (32, 32)])
def test_a_module_of_another_precision_takes_and_gives_it_and_stays_close(name, grid, dtype):
    mixer, x = build(name, grid), torch.randn(2, *grid, DIM)
    other, tokens = copy.deepcopy(mixer).to(dtype), x.to(dtype).requires_grad_()
    y = other(tokens)
    y.sum().backward()
    assert {y.dtype, tokens.grad.dtype, *(p.grad.dtype for p in other.parameters())} == {dtype}
    exact = mixer(x)
    assert (y.to(x.dtype) - exact).norm() <= (1e-5 if dtype == torch.float64 else 0.05) * exact.norm()


@pytest.mark.parametrize("grid", [(6, 7), (32, 32)])
def test_an_empty_batch_stays_empty_and_gives_gradients_of_zero(name, grid):
    mixer, x = build(name, grid), torch.randn(0, *grid, DIM, requires_grad=True)
    with torch.no_grad():
        assert mixer(x).shape == x.shape
    y = mixer(x)
    y.sum().backward()
    assert y.shape == x.grad.shape == x.shape
    assert all(p.grad is None or not p.grad.any() for p in mixer.parameters())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda mixer: pickle.loads(pickle.dumps(mixer))])
def test_a_copy_computes_the_same_and_has_weights_of_its_own(name, copied):
    mixer, x = build(name, (6, 7)), torch.randn(1, 6, 7, DIM)
    before = mixer(x)
    before.sum().backward()
    other = copied(mixer)
    torch.testing.assert_close(other(x), before, rtol=0, atol=0)
    with torch.no_grad():
        for p in other.parameters():
            p.add_(1)
    torch.testing.assert_close(mixer(x), before, rtol=0, atol=0)


@pytest.mark.parametrize("grid", [(9, 11), (32, 32)])
@pytest.mark.parametrize("watching", [lambda: FakeTensorMode(allow_non_fake_inputs=True), lambda: torch.device("meta")])
def test_what_a_mode_left_behind_reaches_no_later_call(name, grid, watching):
    mixer, x = build(name, grid), torch.randn(2, *grid, DIM)
    with watching():
        assert mixer(torch.empty(2, *grid, DIM, device="cpu")).shape == x.shape
        assert build(name, grid)(torch.empty(2, *grid, DIM)).shape == x.shape
    y = mixer(x)
    assert type(y) is torch.Tensor
    assert y.device.type == "cpu"
    torch.testing.assert_close(y, mixer.double()(x.double()).float(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("grid", [(6, 7), (32, 32)])
def test_it_is_exported_for_any_batch(name, grid):
    mixer, x = build(name, grid), torch.randn(3, *grid, DIM)
    program = torch.export.export(mixer, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for batch in (1, 2, 5):
        tokens = torch.randn(batch, *grid, DIM)
        torch.testing.assert_close(program.module()(tokens), mixer(tokens), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", sorted(set(MIXERS) - {"long_short"}))  # whose views aot_autograd does not take
def test_it_is_compiled(name):
    torch.compiler.reset()  # all mixers share one function, which is compiled for so many of them alone
    mixer, x = build(name, (6, 7)), torch.randn(2, 6, 7, DIM, requires_grad=True)
    y = torch.compile(mixer, backend="aot_eager", fullgraph=True)(x)
    (compiled,) = torch.autograd.grad(y.square().sum(), x)
    torch.testing.assert_close(y, mixer(x), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(compiled, *torch.autograd.grad(mixer(x).square().sum(), x), atol=1e-4, rtol=1e-4)

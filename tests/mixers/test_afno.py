import pytest
import torch
from torch import nn

from afno_repro.errors import ConfigError
from afno_repro.mixers.afno import AFNO
from tests.mixers.forms.chosen import FORMS, use

OPTIONS = {"num_blocks": 3, "sparsity_threshold": 0.05, "keep": 1.0, "bias": "identity", "init_std": 0.3}


@pytest.fixture(params=FORMS, autouse=True)
def form(request, monkeypatch):
    """Every form of the layer keeps every promise, whichever one a grid, a width and a device would get."""
    use(request.param, monkeypatch)


def literal(mixer: AFNO, x: torch.Tensor, inside: torch.Tensor | float = 1.0) -> torch.Tensor:
    """Figure 3 line by line, mode by mode, block by block, in float64; modes that are not `inside` (H M) go."""
    _, h, w, d = x.shape
    k = mixer.num_blocks
    w1, b1, w2, b2 = (torch.view_as_complex(p.double()) for p in (mixer.w1, mixer.b1, mixer.w2, mixer.b2))
    z = torch.fft.fft2(x.double(), dim=(1, 2), norm="ortho")[:, :, : w // 2 + 1]
    out = torch.zeros_like(z)
    for n in range(h):
        for m in range(w // 2 + 1):
            for i in range(k):
                part = slice(i * d // k, (i + 1) * d // k)
                hidden = z[:, n, m, part] @ w1[i] + b1[i, :, 0]
                hidden = torch.complex(hidden.real.clamp(min=0), hidden.imag.clamp(min=0))
                out[:, n, m, part] = hidden @ w2[i] + b2[i, :, 0]
    lam = mixer.shrink.lambd
    out = torch.complex(*(v.sign() * (v.abs() - lam).clamp(min=0) for v in (out.real, out.imag)))
    return inverse(out * torch.as_tensor(inside)[..., None], h, w)


def inverse(z: torch.Tensor, h: int, w: int) -> torch.Tensor:
    """Inverse DFT of a half spectrum as cosine and sine sums: along H complex, then along W real."""
    n, m, columns = (torch.arange(size, dtype=torch.float64) for size in (h, w, w // 2 + 1))
    along_h = torch.exp(2j * torch.pi * n[:, None] * n / h)
    z = torch.einsum("nf,bfmc->bnmc", along_h, z)
    angle = 2 * torch.pi * m[:, None] * columns / w
    twice = torch.where((columns == 0) | (2 * columns == w), 1.0, 2.0).double()
    real = torch.einsum("wm,bnmc->bnwc", angle.cos() * twice, z.real) - torch.einsum(
        "wm,bnmc->bnwc", angle.sin() * twice, z.imag
    )
    return real / (h * w) ** 0.5


@pytest.mark.parametrize("grid", [(4, 6), (5, 7), (6, 4), (3, 8)])
def test_afno_is_figure_3(grid):
    mixer = AFNO(6, grid, **OPTIONS).double()
    x = torch.randn(2, *grid, 6, dtype=torch.float64)
    torch.testing.assert_close(mixer(x), literal(mixer, x) + x)
    with torch.no_grad():  # other memory is used
        torch.testing.assert_close(mixer(x), literal(mixer, x) + x)


def test_float32_stays_within_1e6_of_float64():
    mixer = AFNO(48, (14, 14), 4, 0.01, 1.0, "identity", 0.02)
    x = torch.randn(2, 14, 14, 48)
    exact = mixer.double()(x.double())
    assert (mixer.float()(x) - exact).norm() / exact.norm() < 1e-6


def test_bias_adds_nothing_x_or_a_convolution_over_tokens():
    x = torch.randn(1, 4, 6, 6, dtype=torch.float64)
    mixed = {}
    for bias in ("none", "identity", "conv"):
        torch.manual_seed(0)
        mixer = AFNO(6, (4, 6), **{**OPTIONS, "bias": bias}).double()
        mixed[bias] = mixer(x)
    conv = mixer.bias
    assert isinstance(conv, nn.Conv1d)
    torch.testing.assert_close(mixed["identity"], mixed["none"] + x)
    torch.testing.assert_close(mixed["conv"], mixed["none"] + x @ conv.weight[:, :, 0].T + conv.bias)


def test_a_high_threshold_leaves_only_the_bias():
    x = torch.randn(1, 4, 6, 6)
    torch.testing.assert_close(AFNO(6, (4, 6), **{**OPTIONS, "sparsity_threshold": 1e6})(x), x)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("num_blocks", 4),
        ("num_blocks", 0),
        ("sparsity_threshold", -0.1),
        ("keep", 0.0),
        ("keep", 1.5),
        ("bias", "conv2d"),
        ("init_std", 0.0),
    ],
)
def test_impossible_options_name_their_key(option, value):
    with pytest.raises(ConfigError) as error:
        AFNO(6, (4, 4), **{**OPTIONS, option: value})
    assert {p.key for p in error.value.problems} == {(option,)}


def test_all_impossible_options_are_named_at_once():
    with pytest.raises(ConfigError) as error:
        AFNO(6, (4, 4), num_blocks=4, sparsity_threshold=-1.0, keep=0.0, bias="identity", init_std=0.02)
    assert {p.key[0] for p in error.value.problems} == {"num_blocks", "sparsity_threshold", "keep"}


def wave(grid, rows, columns):
    """A real image of one frequency."""
    h, w = (torch.arange(size, dtype=torch.float64) for size in grid)
    return (
        torch.cos(2 * torch.pi * (rows * h[:, None] / grid[0] + columns * w / grid[1]))[None, :, :, None]
        .expand(1, *grid, 6)
        .contiguous()
    )


def passed(keep, grid, rows, columns):
    """What a mixer leaves of a wave, if its MLP passes every kept mode (its output has the same sign pattern)."""
    torch.manual_seed(0)  # weights under which some hidden channel is alive
    mixer = AFNO(6, grid, num_blocks=1, sparsity_threshold=0.0, keep=keep, bias="none", init_std=0.3).double()
    with torch.no_grad():
        for p in (mixer.b1, mixer.b2):
            p.zero_()
    return mixer(wave(grid, rows, columns)).abs().max().item()


@pytest.mark.parametrize("grid", [(16, 16), (16, 12), (15, 17)])
def test_hard_thresholding_passes_low_frequencies_and_removes_high_ones_on_both_axes(grid):
    for rows, columns in ((1, 0), (0, 1), (2, 2), (-2, 1)):
        assert passed(0.5, grid, rows, columns) > 1e-3
    for rows, columns in ((7, 0), (-7, 1), (0, grid[1] // 2 - 1), (grid[0] // 2 - 1, grid[1] // 2 - 1)):
        assert passed(0.5, grid, rows, columns) < 1e-9
        assert passed(1.0, grid, rows, columns) > 1e-3


@pytest.mark.parametrize(
    ("keep", "grid"), [(0.5, (8, 8)), (0.5, (7, 9)), (32 / 56, (14, 14)), (0.1, (5, 5)), (0.9, (6, 10))]
)
def test_hard_thresholding_is_the_full_layer_with_the_other_modes_set_to_zero(keep, grid):
    options = {**OPTIONS, "bias": "none"}
    torch.manual_seed(0)
    kept = AFNO(6, grid, **{**options, "keep": keep}).double()
    x = torch.randn(2, *grid, 6, dtype=torch.float64)
    h, w = grid
    rows = torch.fft.fftfreq(h, 1 / h).round()
    half = max(1, round(keep * h / 2))
    inside = ((rows >= -half) & (rows < half))[:, None] & (torch.arange(w // 2 + 1) <= round(keep * w / 2))
    torch.testing.assert_close(kept(x), literal(kept, x, inside))


@pytest.mark.parametrize(("keep", "grid"), [(1.0, (3, 4)), (1.0, (4, 3)), (1.0, (2, 1)), (0.5, (4, 6)), (0.5, (5, 5))])
def test_gradients_are_those_of_differences(keep, grid):
    mixer = AFNO(4, grid, num_blocks=2, sparsity_threshold=0.05, keep=keep, bias="identity", init_std=0.5).double()
    x = torch.randn(2, *grid, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *weights: mixer(x), (x, *mixer.parameters()))


def test_gradients_of_transposed_and_repeated_tokens_are_those_of_their_copies():
    mixer = AFNO(4, (3, 5), num_blocks=2, sparsity_threshold=0.05, keep=1.0, bias="identity", init_std=0.5).double()
    tokens = torch.randn(2, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    for strided in (tokens.permute(0, 2, 3, 1), tokens[:1].expand(2, -1, -1, -1).permute(0, 2, 3, 1)):
        (own,) = torch.autograd.grad(mixer(strided).sum(), tokens, retain_graph=True)
        (copied,) = torch.autograd.grad(mixer(strided.contiguous()).sum(), tokens)
        torch.testing.assert_close(own, copied)


def test_it_is_one_graph_of_real_arithmetic_for_a_compiler():
    graphs = []

    def keep_graph(graph, inputs):
        graphs.append(graph)
        return graph.forward

    mixer, x = AFNO(6, (6, 8), **OPTIONS), torch.randn(1, 6, 8, 6)
    compiled = torch.compile(mixer, backend=keep_graph, fullgraph=True)
    torch.testing.assert_close(compiled(x), mixer(x))
    assert len(graphs) == 1
    values = [node.meta["example_value"] for node in graphs[0].graph.nodes if "example_value" in node.meta]
    assert not any(value.is_complex() for value in values if isinstance(value, torch.Tensor))
    assert not {"cos", "sin"} & {getattr(node.target, "__name__", node.target) for node in graphs[0].graph.nodes}


def test_keep_1_changes_nothing_and_half_of_each_axis_is_a_quarter_of_the_modes():
    from afno_repro.mixers.spectral import all_modes, kept_modes

    assert kept_modes((56, 56), 1.0) == all_modes((56, 56)) == (28, 28, 29)
    low, high, columns = kept_modes((256, 256), 0.5)
    assert (low + high, columns) == (128, 65)
    low, high, columns = kept_modes((56, 56), 32 / 56)
    assert (low + high, columns) == (32, 17)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("grid", [(8, 8), (7, 9)])
def test_cpu_and_gpu_agree(grid):
    mixer = AFNO(6, grid, **OPTIONS)
    x = torch.randn(2, *grid, 6)
    torch.testing.assert_close(mixer(x), mixer.cuda()(x.cuda()).cpu(), atol=1e-4, rtol=1e-4)

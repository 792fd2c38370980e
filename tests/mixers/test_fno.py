import pytest
import torch

from afno_repro.errors import ConfigError
from afno_repro.mixers.afno import AFNO
from afno_repro.mixers.afno_static import AFNOStatic
from afno_repro.mixers.fno import FNO
from afno_repro.mixers.gfn import GFN
from tests.mixers.forms.chosen import use
from tests.mixers.test_afno import inverse

pytestmark = pytest.mark.fast


@pytest.fixture(params=["transforms", "gpu-tf32"], autouse=True)
def form(request, monkeypatch):
    """Complex products and real ones keep every promise."""
    use(request.param, monkeypatch)


def spectrum(x):
    """Modes by their signed row frequency and column: a function (f, m) -> B C."""
    z = torch.fft.rfft2(x, dim=(1, 2), norm="ortho")
    return z, torch.fft.fftfreq(x.shape[1], 1 / x.shape[1]).round().int().tolist()


def literal(weight, modes, x, matrix):
    """Mode by mode: rows -m .. m - 1 and columns 0 .. n - 1 are mixed by their own matrix, others removed."""
    z, frequencies = spectrum(x)
    out = torch.zeros_like(z)
    for row, f in enumerate(frequencies):
        for column in range(z.shape[2]):
            if -modes[0] <= f < modes[0] and column < modes[1]:
                out[:, row, column] = matrix(z[:, row, column], weight[f % (2 * modes[0]), column])
    return inverse(out, *x.shape[1:3])


@pytest.mark.parametrize(
    ("grid", "modes"), [((8, 8), [2, 3]), ((7, 9), [3, 2]), ((6, 6), [3, 4]), ((5, 4), [8, 8]), ((4, 6), [1, 1])]
)
def test_fno_is_one_full_matrix_per_kept_mode(grid, modes):
    mixer, x = FNO(3, grid, modes, init_std=0.5).double(), torch.randn(2, *grid, 3, dtype=torch.float64)
    torch.testing.assert_close(mixer(x), literal(torch.view_as_complex(mixer.weight), modes, x, torch.matmul))


@pytest.mark.parametrize(("grid", "modes"), [((8, 8), [2, 3]), ((7, 9), [3, 2]), ((6, 6), [3, 4]), ((5, 4), [8, 8])])
def test_afno_static_is_one_block_diagonal_matrix_per_kept_mode(grid, modes):
    mixer = AFNOStatic(
        6, grid, num_blocks=2, sparsity_threshold=0.1, modes=modes, bias="identity", init_std=0.5
    ).double()
    x = torch.randn(2, *grid, 6, dtype=torch.float64)

    def matrix(z, blocks):
        out = torch.cat([z[:, :3] @ blocks[0], z[:, 3:] @ blocks[1]], dim=1)
        return torch.complex(*(v.sign() * (v.abs() - 0.1).clamp(min=0) for v in (out.real, out.imag)))

    torch.testing.assert_close(mixer(x), literal(torch.view_as_complex(mixer.weight), modes, x, matrix) + x)


@pytest.mark.parametrize("grid", [(6, 8), (4, 4)])
def test_fno_with_diagonal_matrices_and_all_modes_is_a_gfn(grid):
    modes = [grid[0] // 2, grid[1] // 2 + 1]
    fno, gfn = FNO(3, grid, modes, init_std=0.5).double(), GFN(3, grid, init_std=0.02).double()
    fno.weight.data = torch.diag_embed(gfn.filter.permute(3, 0, 1, 2)).permute(1, 2, 3, 4, 0).contiguous()
    x = torch.randn(2, *grid, 3, dtype=torch.float64)
    torch.testing.assert_close(fno(x), gfn(x))


def test_afno_static_with_one_block_is_an_fno_with_shrinkage():
    static = AFNOStatic(3, (6, 6), num_blocks=1, sparsity_threshold=0.0, modes=[2, 2], bias="none", init_std=0.5)
    fno = FNO(3, (6, 6), [2, 2], init_std=0.5)
    fno.weight.data = static.weight.data[:, :, 0]
    x = torch.randn(1, 6, 6, 3)
    torch.testing.assert_close(static(x), fno(x))


def band_limited(grid, seed=0):
    """Samples of one smooth periodic function of the plane on a grid."""
    generator = torch.Generator().manual_seed(seed)
    h, w = (torch.arange(size, dtype=torch.float64) / size for size in grid)
    image = torch.zeros(*grid, 4, dtype=torch.float64)
    for f in (-1, 0, 1):
        for m in (0, 1):
            a, b = torch.randn(2, 4, generator=generator, dtype=torch.float64)
            angle = 2 * torch.pi * (f * h[:, None] + m * w)
            image += angle.cos()[..., None] * a + angle.sin()[..., None] * b
    return image[None]


def test_an_fno_gives_the_same_function_on_a_finer_grid():
    mixer = FNO(4, (8, 8), [2, 2], init_std=0.5).double()
    coarse, fine = (mixer(band_limited(grid)) for grid in ((8, 8), (16, 24)))
    torch.testing.assert_close(fine[:, ::2, ::3], coarse)


def test_an_afno_without_threshold_and_biases_gives_the_same_function_on_a_finer_grid():
    mixer = AFNO(4, (8, 8), num_blocks=2, sparsity_threshold=0.0, keep=1.0, bias="identity", init_std=0.5).double()
    with torch.no_grad():
        mixer.b1.zero_()
        mixer.b2.zero_()
    coarse, fine = (mixer(band_limited(grid)) for grid in ((8, 8), (16, 24)))
    torch.testing.assert_close(fine[:, ::2, ::3], coarse)


@pytest.mark.parametrize("modes", [[0, 1], [2], [2, -1], [1, 2, 3]])
def test_modes_are_two_numbers(modes):
    with pytest.raises(ConfigError, match="modes"):
        FNO(4, (4, 4), modes, init_std=0.5)
    with pytest.raises(ConfigError, match="modes"):
        AFNOStatic(4, (4, 4), 2, 0.0, modes, "none", 0.5)

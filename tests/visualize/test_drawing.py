import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from skimage.color import rgb2lab

from afno_repro.visualize import drawing
from afno_repro.visualize.drawing import CLUSTERS, WIDTH, clusters_figure, matched, spectra_figure, wrapped

RNG = np.random.default_rng(0)


def column(shown=3):
    maps = RNG.integers(4, size=(shown, 5, 24, 24)).astype(np.uint8)
    regions = np.kron(np.arange(4).reshape(2, 2), np.ones((12, 12))).astype(np.uint8)
    images = RNG.integers(256, size=(shown, 96, 96, 3)).astype(np.uint8)
    return {
        "images": images,
        "regions": np.stack([regions] * shown),
        "clusters": maps,
        "layers": np.array([2, 4, 6, 8, 10]),
    }


def spectra(scale=1.0, grid=(16, 16)):
    half = (5, grid[0], grid[1] // 2 + 1)
    return {
        "magnitude": (scale * RNG.random(half)).astype(np.float32),
        "zeroed": RNG.random(half),
        "grid": np.array(grid),
        "layers": np.arange(1, 6),
    }


FIGURES = {
    "four mixers": (clusters_figure, {name: column() for name in ("SA", "GFN", "Long-Short", "AFNO (ours)")}),
    "one mixer, one image": (clusters_figure, {"AFNO": column(1)}),
    "spectra": (spectra_figure, spectra()),
    "spectra of zeros": (spectra_figure, spectra(0.0, (5, 7))),
}


@pytest.fixture(params=FIGURES)
def drawn(request):
    return FIGURES[request.param]


@pytest.mark.parametrize("ending", [".png", ".svg"])
def test_the_same_arrays_give_the_same_bytes(drawn, ending, tmp_path):
    draw, arrays = drawn
    for name in ("one", "two"):
        draw(arrays, [(tmp_path / name).with_suffix(ending)])
    files = [(tmp_path / name).with_suffix(ending).read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]
    assert b"<dc:date>" not in files[0]


def test_the_text_is_at_least_8_points_high_on_a_printed_page(drawn, monkeypatch, tmp_path):
    draw, arrays = drawn
    figures = []
    monkeypatch.setattr(drawing, "save", lambda figure, paths: figures.append(figure))
    draw(arrays, [tmp_path / "figure.png"])
    figures[0].canvas.draw()
    assert figures[0].get_figwidth() <= WIDTH + 0.05
    assert min(text.get_fontsize() for text in figures[0].findobj(Text) if text.get_text()) >= 8


def test_colours_of_four_clusters_differ_in_grey():
    lightness = sorted(rgb2lab([[to_rgb(color) for color in CLUSTERS[:4]]])[0, :, 0])
    assert np.diff(lightness).min() > 15


def test_a_region_has_one_colour_for_all_mixers():
    first, order = column()["clusters"], np.array([2, 0, 3, 1], dtype=np.uint8)
    found = matched([first, order[first]])
    np.testing.assert_array_equal(found[1], first)


def test_titles_break_between_words():
    assert [wrapped(title) for title in ("AFNO", "Self-Attention", "AFNO (ours)")] == [
        "AFNO",
        "Self-\nAttention",
        "AFNO\n(ours)",
    ]


def test_drawing_needs_no_torch():
    code = "import sys, afno_repro.visualize.drawing; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

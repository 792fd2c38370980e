import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from skimage.color import rgb2lab

from afno_repro.visualize import drawing, panels
from afno_repro.visualize.board import SQUARE
from afno_repro.visualize.drawing import CLUSTERS, WIDTH, clusters_figure, matched, spectra_figure, wrapped
from afno_repro.visualize.marks import MIXERS, OTHERS
from afno_repro.visualize.panels import PALETTE, overlay_figure, triptych_figure

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


def boards(*names):
    return {name: RNG.integers(256, size=(2, 32, 32, 3)).astype(np.uint8) for name in names}


def maps():
    classes = RNG.integers(3, size=(2, 32, 32)).astype(np.uint8)
    label = np.where(RNG.random((2, 32, 32)) < 0.1, 255, classes).astype(np.uint8)
    return {**boards("true"), "label": label, "prediction": classes}


FIGURES = {
    "four mixers": (clusters_figure, {name: column() for name in ("SA", "GFN", "Long-Short", "AFNO (a variant)")}),
    "one mixer, one image": (clusters_figure, {"AFNO": column(1)}),
    "spectra": (spectra_figure, spectra()),
    "spectra of zeros": (spectra_figure, spectra(0.0, (5, 7))),
    "triptychs": (
        triptych_figure,
        {name: boards("masked", "rebuilt", "true") for name in ("GFN", "AFNO (not shown to learn)")},
    ),
    "a name of capitals": (triptych_figure, {"GFN AND AFNO": boards("masked", "rebuilt", "true")}),
    "overlays": (partial(overlay_figure, classes=["brick", "grass"]), {name: maps() for name in ("GFN", "AFNO")}),
}
SAID = "The first 3 of many images; networks of the tiny scale, seed 0."


@pytest.fixture(params=FIGURES)
def drawn(request):
    return FIGURES[request.param]


@pytest.mark.parametrize("ending", [".png", ".svg", ".pdf"])
def test_the_same_arrays_give_the_same_bytes(drawn, ending, tmp_path):
    draw, arrays = drawn
    for name in ("one", "two"):
        draw(arrays, SAID, paths=[(tmp_path / name).with_suffix(ending)])
    files = [(tmp_path / name).with_suffix(ending).read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]
    assert not any(date in files[0] for date in (b"<dc:date>", b"/CreationDate"))


def figure_of(drawn, monkeypatch):
    draw, arrays = drawn
    figures = []
    for module in (drawing, panels):
        monkeypatch.setattr(module, "save", lambda figure, paths: figures.append(figure))
    draw(arrays, SAID, paths=[])
    figures[0].canvas.draw()
    return figures[0]


def test_every_picture_says_what_it_shows_of_which_networks(drawn, monkeypatch):
    words = " ".join(" ".join(text.get_text() for text in figure_of(drawn, monkeypatch).findobj(Text)).split())
    assert SAID in words


def test_no_text_leaves_its_figure(drawn, monkeypatch):
    figure = figure_of(drawn, monkeypatch)
    width, height = figure.get_size_inches() * figure.dpi
    for text in figure.findobj(Text):
        box = text.get_window_extent()
        assert not text.get_text().strip() or (box.x0 >= -1 and box.x1 <= width + 1 and box.y0 >= -1), text.get_text()
        assert not text.get_text().strip() or box.y1 <= height + 1, text.get_text()


def test_overlays_have_a_legend_of_their_classes(monkeypatch):
    figure = figure_of(FIGURES["overlays"], monkeypatch)
    texts = [text.get_text() for text in figure.findobj(Text)]
    assert [text for text in texts if text in ("brick", "grass", "class 2", "class 3", "not labelled")] == [
        "brick",
        "grass",
        "class 2",
        "not labelled",
    ]
    assert len([each for each in figure.findobj(Rectangle) if each.get_width() == SQUARE]) == 4


def test_the_colours_of_classes_are_no_mixers():
    assert not {*PALETTE} & {mark.color for mark in (*MIXERS.values(), *OTHERS)}


def test_the_scale_of_a_spectrum_ends_with_its_data(monkeypatch):
    arrays = spectra()
    arrays["zeroed"] *= 0.3
    figure = figure_of((spectra_figure, arrays), monkeypatch)
    pictures = [image for axes in figure.axes for image in axes.get_images()]
    assert pictures[-1].norm.vmax == pytest.approx(arrays["zeroed"].max())
    assert {tuple(image.get_extent()) for image in pictures} == {(-8.5, 7.5, 7.5, -8.5)}


def test_the_text_is_at_least_8_points_high_on_a_printed_page(drawn, monkeypatch):
    figure = figure_of(drawn, monkeypatch)
    assert figure.get_figwidth() <= WIDTH + 0.05 or drawn[0] is triptych_figure
    assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()) >= 8


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

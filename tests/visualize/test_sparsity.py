import csv
import io

import numpy as np
import pytest
import torch

from afno_repro.config import ModelConfig, Part
from afno_repro.errors import ConfigError
from afno_repro.mixers.spectral import block_matmul, on_parts
from afno_repro.models import build_model
from afno_repro.tables.figures import radius_csv
from afno_repro.visualize.pictures import centred_spectrum, full_spectrum, radius
from afno_repro.visualize.sparsity import Spectra

pytestmark = pytest.mark.fast

SIZES = [(6, 8), (5, 7), (6, 7), (5, 8), (1, 4), (4, 1), (2, 2)]


def network(threshold=0.1, keep=1.0, depth=2):
    torch.manual_seed(0)
    backbone = Part("vit", {"patch_size": 4, "embed_dim": 8, "depth": depth, "mlp_ratio": 2, "skips": 2})
    mixer = Part(
        "afno", {"num_blocks": 2, "sparsity_threshold": threshold, "keep": keep, "bias": "identity", "init_std": 0.5}
    )
    return build_model(ModelConfig(backbone, mixer, Part("inpainting", {})), 32)


def images(count):
    return list(torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)))


def pictures(model, count=2, layers=(1, 2), bins=4):
    return Spectra(32, list(layers), bins).compute(model, images(count), [None] * count)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_the_mirrored_half_spectrum_is_the_whole_one(height, width):
    image = np.random.default_rng(0).normal(size=(3, height, width))
    whole = np.abs(np.fft.fft2(image))
    np.testing.assert_allclose(full_spectrum(np.abs(np.fft.rfft2(image)), width), whole, atol=1e-12)


def test_columns_that_are_their_own_mirror_stay_as_they_are():
    half = np.random.default_rng(0).random((5, 5))  # of a 5 x 8 grid
    np.testing.assert_array_equal(full_spectrum(half, 8)[:, :5], half)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_frequency_zero_moves_to_the_centre(height, width):
    whole = np.zeros((2, height, width))
    whole[:, 0, 0] = 1
    assert np.argwhere(centred_spectrum(whole)).tolist() == [[i, height // 2, width // 2] for i in range(2)]
    assert centred_spectrum(radius((height, width)))[height // 2, width // 2] == 0


def test_spectra_are_those_of_the_mixers():
    model, z = network(), []
    hook = model.backbone.blocks[1].mixer.register_forward_pre_hook(lambda module, inputs: z.append(inputs[0]))
    found = pictures(model, count=1)
    hook.remove()
    with torch.no_grad():
        spectrum = torch.fft.rfft2(z[0][0].permute(2, 0, 1), norm="ortho")
        mixer = model.backbone.blocks[1].mixer
        hidden = block_matmul(
            spectrum.flatten(1)[None].unflatten(1, (mixer.num_blocks, -1)), mixer.w1
        ) + torch.view_as_complex(mixer.b1)
        out = block_matmul(on_parts(torch.relu, hidden), mixer.w2) + torch.view_as_complex(mixer.b2)
        shrunk = on_parts(mixer.shrink, out)[0].flatten(0, 1).unflatten(-1, (8, 5)).numpy()
    np.testing.assert_allclose(found.arrays["magnitude"][1], np.abs(shrunk).mean(0), rtol=1e-4, atol=1e-6)
    expected = ((shrunk.real == 0) / 2 + (shrunk.imag == 0) / 2).mean(0)
    assert 0 < expected.mean() < 1
    np.testing.assert_allclose(found.arrays["zeroed"][1], expected, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), SIZES[:4])
def test_fractions_are_those_of_the_whole_spectrum(height, width):
    image = np.random.default_rng(0).normal(size=(1, 1, height, width))
    half, whole = np.abs(np.fft.rfft2(image)) < 4, np.abs(np.fft.fft2(image)) < 4
    low = radius((height, width)) <= radius((height, width)).max() / 2
    found = Spectra(32, [3], 4).fractions(half.astype(float), (height, width))
    expected = {"zeroed": whole.mean(), "zeroed_low": whole[..., low].mean(), "zeroed_high": whole[..., ~low].mean()}
    assert {key: found[key][0] for key in expected} == pytest.approx(expected)
    assert {key: found[f"{key}_3"][0] for key in expected} == pytest.approx(expected)
    assert found["zeroed_contrast"][0] == pytest.approx(expected["zeroed_high"] - expected["zeroed_low"])


def test_the_radius_bins_hold_every_mode_once():
    grid, spectra = (6, 7), Spectra(32, [1], 3)
    zeroed = np.random.default_rng(0).random((1, 6, 4))
    found = spectra.by_radius(zeroed, grid)
    assert found["radius"][[0, -1]].tolist() == [0, radius(grid).max()]
    modes, _ = np.histogram(radius(grid), found["radius"])
    assert (found["zeroed_radius_1"] * modes).sum() / 42 == pytest.approx(full_spectrum(zeroed, 7).mean(), rel=1e-6)


def test_the_csv_has_every_bin_with_a_mode_and_its_fraction():
    arrays = pictures(network()).arrays
    lines = list(csv.DictReader(io.StringIO(radius_csv({"AFNO": arrays}))))
    modes, _ = np.histogram(radius((8, 8)), arrays["radius"])
    assert {(line["row"], line["layer"]) for line in lines} == {("AFNO", "1"), ("AFNO", "2")}
    for i in (0, 1):
        found = [line for line in lines if line["layer"] == str(i + 1)]
        held = [
            modes[np.isclose(arrays["radius"][:-1], float(line["radius_from"]), rtol=1e-4)].item() for line in found
        ]
        total = sum(float(line["zeroed"]) * count for line, count in zip(found, held, strict=True))
        assert total / modes.sum() == pytest.approx(full_spectrum(arrays["zeroed"], 8)[i].mean(), rel=1e-4)


def test_metrics_are_means_over_images_and_over_layers():
    found = pictures(network(), count=3)
    names = ("zeroed", "zeroed_low", "zeroed_high", "zeroed_contrast")
    assert set(found.metrics) == {f"{name}{ending}" for name in names for ending in ("", "_1", "_2")}
    assert all(
        len(values) == 3 and found.metrics[key] == pytest.approx(np.mean(values))
        for key, values in found.repeats.items()
    )
    for i in range(3):
        assert found.repeats["zeroed"][i] == pytest.approx(
            (found.repeats["zeroed_1"][i] + found.repeats["zeroed_2"][i]) / 2
        )
    assert full_spectrum(found.arrays["zeroed"], 8).mean() == pytest.approx(found.metrics["zeroed"], abs=1e-6)
    assert found.arrays["grid"].tolist() == [8, 8]
    assert {key: found.arrays[key].dtype for key in ("magnitude", "zeroed")} == {
        "magnitude": np.float32,
        "zeroed": np.float32,
    }


@pytest.mark.parametrize(("threshold", "zeroed"), [(0.0, 0.0), (1e6, 1.0)])
def test_no_threshold_zeroes_nothing_and_a_huge_one_everything(threshold, zeroed):
    found = pictures(network(threshold))
    assert {found.metrics[key] for key in ("zeroed", "zeroed_low", "zeroed_high")} == {zeroed}
    assert (found.arrays["magnitude"] > 0).all() == (zeroed == 0)


def test_layers_may_be_chosen_and_nothing_stays_hooked():
    model = network()
    both, second = pictures(model), pictures(model, layers=[2])
    np.testing.assert_array_equal(both.arrays["magnitude"][1:], second.arrays["magnitude"])
    assert both.metrics["zeroed_2"] == second.metrics["zeroed_2"] == second.metrics["zeroed"]
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(("change", "text"), [({"keep": 0.5}, "keep"), ({"depth": 1}, "has 1 AFNO layers")])
def test_a_network_that_cannot_be_shown_is_refused(change, text):
    with pytest.raises(ConfigError, match=text):
        pictures(network(**change))


@pytest.mark.parametrize(("key", "value"), [("layers", []), ("layers", [2, 2]), ("layers", [0, 1]), ("bins", 1)])
def test_an_option_out_of_range_is_named(key, value):
    with pytest.raises(ConfigError) as raised:
        Spectra(32, **{"layers": [1], "bins": 4, key: value})
    assert [problem.key for problem in raised.value.problems] == [(key,)]

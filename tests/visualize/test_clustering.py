import itertools

import numpy as np
import pytest
import torch
from torch import nn

from afno_repro.config import ModelConfig, Part
from afno_repro.errors import ConfigError, DataError
from afno_repro.models import build_model
from afno_repro.tasks.inpainting import Inpainting
from afno_repro.visualize.clustering import (
    Clusters,
    boundary_score,
    cluster,
    majority,
    same_colours,
    segmentation,
    show,
    token_features,
    without_gaps,
)
from afno_repro.visualize.pictures import recoloured

MEASURES = ("ari", "boundary", "ari_gain", "boundary_gain")
OPTIONS = {"layers": [1, 3], "clusters": 4, "neighbours": 10, "shown": 2, "regions": "segmentation"}


def network(image_size=32, depth=3):
    torch.manual_seed(0)
    backbone = Part("vit", {"patch_size": 4, "embed_dim": 8, "depth": depth, "mlp_ratio": 2, "skips": 2})
    mixer = Part(
        "afno", {"num_blocks": 2, "sparsity_threshold": 0.01, "keep": 1.0, "bias": "identity", "init_std": 0.5}
    )
    return build_model(ModelConfig(backbone, mixer, Part("inpainting", {})), image_size)


def quadrants(side, values=(0, 1, 2, 3)):
    return np.kron(np.array(values).reshape(2, 2), np.ones((side // 2, side // 2))).astype(np.uint8)


def picture(side=32, seed=0):
    grey = torch.tensor(quadrants(side, (0, 200, 90, 255)))
    return (grey.float() / 2 + 100 * torch.rand(3, side, side, generator=torch.Generator().manual_seed(seed))).to(
        torch.uint8
    )


def test_clusters_are_found_where_features_form_groups():
    groups = quadrants(12)
    rng = np.random.default_rng(0)
    features = 10 * np.eye(4)[groups] + rng.normal(0, 0.5, (12, 12, 4))
    np.testing.assert_array_equal(recoloured(cluster(features, 4, 10), groups), groups)


def test_features_are_those_of_the_blocks_for_the_whole_centred_image():
    model, image = network().train(), picture()
    found = token_features(model, image, [1, 3])
    tokens = model.backbone.positions(
        model.backbone.embed((image / 255 - (image / 255).mean((1, 2), keepdim=True))[None])
    )
    for number, block in enumerate(model.backbone.blocks, 1):
        tokens = block(tokens)
        if number != 2:
            np.testing.assert_allclose(found[number // 2], tokens[0].detach().numpy(), rtol=1e-4, atol=1e-5)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_the_network_sees_what_inpainting_shows_it_when_nothing_is_hidden():
    seen = []

    class Spy(nn.Linear):
        def forward(self, images):
            seen.append(images)
            return torch.zeros_like(images)

    spy, image = Spy(1, 1), picture()
    show(spy, image)
    Inpainting(32, {"grid": "pixels", "steps": 0}).predict(
        spy, image[None] / 255, torch.zeros(1, 32, 32, dtype=torch.bool)
    )
    torch.testing.assert_close(seen[0], seen[1], rtol=0, atol=1e-6)


def test_a_region_keeps_its_colour_from_layer_to_layer():
    groups = quadrants(8)
    renamed = [np.array(order, dtype=np.uint8)[groups] for order in itertools.permutations(range(4))]
    named = same_colours(renamed)
    assert all(np.array_equal(labels, named[0]) for labels in named)


def test_the_first_layer_is_named_by_size():
    labels = np.repeat(np.array([2, 0, 1], dtype=np.uint8), [1, 2, 3])[None]
    np.testing.assert_array_equal(same_colours([labels])[0], [[2, 1, 1, 0, 0, 0]])


def test_recolouring_maximises_the_overlap():
    rng = np.random.default_rng(0)
    labels, reference = rng.integers(4, size=(2, 6, 6)).astype(np.uint8)
    best = max((np.array(order)[labels] == reference).sum() for order in itertools.permutations(range(4)))
    assert (recoloured(labels, reference) == reference).sum() == best


def test_a_boundary_may_be_one_token_off():
    halves = [(np.arange(12) >= 6 + shift)[None].repeat(12, 0) for shift in range(4)]
    scores = [boundary_score(shifted, halves[0]) for shifted in halves]
    assert scores == [1, 1, 0, 0]


def test_the_boundary_score_is_that_of_all_pairs_of_edges():
    rng = np.random.default_rng(0)
    labels, regions = (rng.random((2, 9, 7)) < 0.08).astype(np.uint8)

    def edges(grid):
        found = [(i + 0.5, j) for i in range(8) for j in range(7) if grid[i, j] != grid[i + 1, j]]
        return np.array(found + [(i, j + 0.5) for i in range(9) for j in range(6) if grid[i, j] != grid[i, j + 1]])

    near = np.linalg.norm(edges(labels)[:, None] - edges(regions), axis=-1) <= 1
    precision, recall = near.any(1).mean(), near.any(0).mean()
    assert 0 < precision < 1
    assert boundary_score(labels, regions) == pytest.approx(2 * precision * recall / (precision + recall))


def test_one_cluster_has_no_boundary_to_score():
    assert boundary_score(np.zeros((6, 6)), quadrants(6)) == 0


def test_a_token_has_the_class_of_most_of_its_pixels_that_have_one():
    labels = np.array([[3, 3, 255, 255], [3, 1, 255, 255], [5, 255, 2, 1], [255, 255, 255, 2]])
    np.testing.assert_array_equal(majority(labels, (2, 2)), [[3, 255], [5, 2]])


def test_tokens_without_a_class_take_the_nearest_one():
    np.testing.assert_array_equal(without_gaps(np.array([[1, 1, 255, 255, 2]])), [[1, 1, 1, 2, 2]])


def test_segmentation_finds_even_areas():
    image = torch.tensor(quadrants(32, (0, 255, 0, 255))).expand(3, -1, -1)
    halves = quadrants(8, (0, 1, 0, 1))
    np.testing.assert_array_equal(recoloured(majority(segmentation(image), (8, 8)), halves), halves)


def test_pictures_hold_means_over_images_and_the_shown_ones():
    pictures = Clusters(32, **OPTIONS).compute(network(), [picture(seed=i) for i in range(3)], [None] * 3)
    assert set(pictures.metrics) == {f"{name}{ending}" for name in MEASURES for ending in ("", "_1", "_3", "_last")}
    assert all(
        len(values) == 3 and pictures.metrics[key] == pytest.approx(np.mean(values))
        for key, values in pictures.repeats.items()
    )
    assert pictures.repeats["ari_last"] == pictures.repeats["ari_3"]
    shapes = {"images": (2, 32, 32, 3), "regions": (2, 8, 8), "clusters": (2, 2, 8, 8), "layers": (2,)}
    assert {key: array.shape for key, array in pictures.arrays.items()} == shapes
    assert all(pictures.arrays[key].dtype == np.uint8 for key in ("images", "regions", "clusters"))


def test_the_same_network_and_images_give_the_same_pictures():
    one, two = (Clusters(32, **OPTIONS).compute(network(), [picture()], [None]) for _ in range(2))
    assert one.metrics == two.metrics
    assert all(np.array_equal(one.arrays[key], two.arrays[key]) for key in one.arrays)


def test_clusters_that_are_the_labels_agree_fully(monkeypatch):
    monkeypatch.setattr("afno_repro.visualize.clustering.cluster", lambda features, clusters, neighbours: quadrants(8))
    labels = torch.tensor(quadrants(32, (3, 1, 0, 2)))
    labels[:, 15:17] = 255
    pictures = Clusters(32, **{**OPTIONS, "regions": "labels"}).compute(network(), [picture()], [labels])
    assert set(pictures.metrics.values()) == {1.0}


def test_clusters_that_say_where_a_token_is_gain_nothing(monkeypatch):
    monkeypatch.setattr("afno_repro.visualize.clustering.cluster", lambda features, clusters, neighbours: quadrants(8))
    images = [picture(seed=i) for i in range(3)]
    alike = Clusters(32, **{**OPTIONS, "regions": "labels"}).compute(
        network(), images, [torch.tensor(quadrants(32))] * 3
    )
    assert (alike.metrics["ari"], alike.metrics["ari_gain"], alike.metrics["boundary_gain"]) == (1, 0, 0)
    stripes = [torch.arange(32).div(size, rounding_mode="floor").to(torch.uint8).expand(32, 32) for size in (16, 8, 4)]
    different = Clusters(32, **{**OPTIONS, "regions": "labels"}).compute(network(), images, stripes)
    own = different.repeats["boundary"]
    assert different.repeats["boundary_gain"] == pytest.approx([own[i] - (sum(own) - own[i]) / 2 for i in range(3)])


def test_images_of_one_region_are_left_out():
    images = [torch.zeros(3, 32, 32, dtype=torch.uint8), picture()]
    assert len(Clusters(32, **OPTIONS).compute(network(), images, [None, None]).repeats["ari"]) == 1
    with pytest.raises(DataError, match="none of 1 images"):
        Clusters(32, **OPTIONS).compute(network(), images[:1], [None])


def test_too_few_tokens_or_layers_are_refused_before_anything_is_run():
    for size, depth, text in ((24, 3, "24 pixels give 36"), (32, 2, "has 2 layers")):
        with torch.device("meta"):
            model = network(size, depth)
        with pytest.raises(ConfigError, match=text):
            Clusters(size, **OPTIONS).check(model)


def test_labels_are_needed_where_they_are_compared_with():
    with pytest.raises(ConfigError, match="map of classes"):
        Clusters(32, **{**OPTIONS, "regions": "labels"}).compute(network(), [picture()], [None])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("layers", []),
        ("layers", [2, 1]),
        ("layers", [0]),
        ("clusters", 1),
        ("clusters", 9),
        ("neighbours", 1),
        ("shown", 0),
        ("regions", "x"),
    ],
)
def test_an_option_out_of_range_is_named(key, value):
    with pytest.raises(ConfigError) as raised:
        Clusters(32, **{**OPTIONS, key: value})
    assert [problem.key for problem in raised.value.problems] == [(key,)]

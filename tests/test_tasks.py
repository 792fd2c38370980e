import numpy as np
import pytest
import torch

from afno_repro.errors import ConfigError
from afno_repro.tasks import Inpainting

TOKENS = {"grid": "tokens", "patch_size": 4, "steps": 16}


@pytest.fixture
def batch():
    task, rng = Inpainting(16, TOKENS), np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 3, 16, 16), dtype=np.uint8)
    return tuple(torch.stack(parts) for parts in zip(*(task.prepare(torch.from_numpy(i), rng) for i in images), strict=True))


class Constant(torch.nn.Module):
    """Predicts one value, and remembers what it was shown."""

    def __init__(self, value=0.0):
        super().__init__()
        self.value, self.seen = value, None

    def forward(self, x):
        self.seen = x
        return torch.full_like(x, self.value)


def test_masks_hide_whole_patches_on_tokens_and_single_pixels_on_pixels(batch):
    masks = batch[1]
    patches = masks.unflatten(1, (4, 4)).unflatten(3, (4, 4)).float().mean((2, 4))
    assert set(patches.unique().tolist()) == {0.0, 1.0}
    _, pixels = Inpainting(16, {"grid": "pixels", "steps": 5}).prepare(torch.zeros(3, 16, 16, dtype=torch.uint8), np.random.default_rng(1))
    assert 1 <= pixels.sum() <= 6


def test_the_network_sees_hidden_pixels_as_zero_and_visible_ones_centred_on_their_mean(batch):
    task, model = Inpainting(16, TOKENS), Constant()
    task.loss(model, batch)
    images, masks = batch
    for seen, image, mask in zip(model.seen, images, masks, strict=True):
        assert seen[:, mask].abs().max() == 0
        torch.testing.assert_close(seen[:, ~mask], image[:, ~mask] - image[:, ~mask].mean(1, keepdim=True))


def test_nothing_hidden_reaches_the_network(batch):
    task, model = Inpainting(16, TOKENS), Constant()
    images, masks = batch
    task.loss(model, batch)
    seen = model.seen
    task.loss(model, (torch.where(masks[:, None], 0.123, images), masks))
    torch.testing.assert_close(model.seen, seen)


def test_the_loss_is_the_mean_squared_error_of_hidden_pixels_alone(batch):
    task = Inpainting(16, TOKENS)
    images, masks = batch
    means = torch.stack([i[:, ~m].mean(1) for i, m in zip(*batch, strict=True)])
    errors = torch.cat([((mean[:, None] + 0.25) - i[:, m]).flatten() for mean, i, m in zip(means, images, masks, strict=True)])
    torch.testing.assert_close(task.loss(Constant(0.25), batch), errors.square().mean())


def test_a_reconstruction_keeps_visible_pixels_and_clips_hidden_ones(batch):
    task = Inpainting(16, TOKENS)
    images, masks = batch
    rebuilt = task.reconstruct(torch.full_like(images, 7.0), batch)
    hidden = masks[:, None].expand_as(images)
    assert (rebuilt[hidden] == 1.0).all()
    assert torch.equal(rebuilt[~hidden], images[~hidden])


def test_metrics_have_the_keys_they_announce(batch):
    metrics = Inpainting(16, TOKENS).metrics()
    metrics.update(Constant(), batch)
    assert set(metrics.compute()) == set(metrics.keys)


@pytest.mark.parametrize(
    "walk",
    [
        {},
        {"grid": "tokens", "steps": 4},
        {"grid": "tokens", "patch_size": 5, "steps": 4},
        {"grid": "tokens", "patch_size": 0, "steps": 4},
        {"grid": "pixels", "patch_size": 4, "steps": 4},
        {"grid": "pixels", "steps": -1},
        {"grid": "pixels", "steps": 1.5},
        {"grid": "rows", "steps": 4},
        {"grid": "pixels", "steps": 4, "speed": 2},
    ],
    ids=str,
)
def test_a_walk_that_cannot_be_walked_is_refused(walk):
    with pytest.raises(ConfigError, match="walk: inpainting"):
        Inpainting(16, walk)

import numpy as np
import pytest
import torch

from afno_repro.errors import ConfigError
from afno_repro.tasks import TASKS
from afno_repro.tasks.classification import Classification
from afno_repro.tasks.inpainting import Inpainting
from afno_repro.tasks.inputs import centred
from afno_repro.tasks.segmentation import Segmentation

pytestmark = pytest.mark.fast

TOKENS = {"grid": "tokens", "patch_size": 4, "steps": 16}


@pytest.fixture
def batch():
    task, rng = Inpainting(16, TOKENS), np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 3, 16, 16), dtype=np.uint8)
    samples = [task.prepare((torch.from_numpy(i), None), rng) for i in images]
    return task.enter(tuple(torch.stack(parts) for parts in zip(*samples, strict=True)))


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
    _, pixels = Inpainting(16, {"grid": "pixels", "steps": 5}).prepare(
        (torch.zeros(3, 16, 16, dtype=torch.uint8), None), np.random.default_rng(1)
    )
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
    errors = torch.cat(
        [((mean[:, None] + 0.25) - i[:, m]).flatten() for mean, i, m in zip(means, images, masks, strict=True)]
    )
    torch.testing.assert_close(task.loss(Constant(0.25), batch) / task.weight(batch), errors.square().mean())


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
    assert tuple(metrics.compute()) == metrics.keys


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


CLASSES = {"num_classes": 7, "input": "image_mean", "mixup": 0.0, "cutmix": 0.0, "label_smoothing": 0.1}
PIXELS = {"num_classes": 4, "input": "imagenet", "stride": 8, "absent": "skip"}


class Linear(torch.nn.Module):
    """Scores of a 1x1 convolution, on a coarser grid where `factor` is above 1, or their mean over the image."""

    def __init__(self, classes, factor=1, mean=False):
        super().__init__()
        torch.manual_seed(0)
        self.convolution, self.factor, self.mean = torch.nn.Conv2d(3, classes, 1), factor, mean

    def forward(self, x):
        scores = self.convolution(torch.nn.functional.avg_pool2d(x, self.factor))
        return scores.mean((2, 3)) if self.mean else scores


def test_classification_s_loss_is_the_smoothed_cross_entropy():
    task, model = Classification(16, **CLASSES), Linear(7, mean=True)
    images, classes = torch.randn(5, 3, 16, 16), torch.tensor([0, 3, 6, 3, 1])
    log_p = model(images).log_softmax(1)
    target = torch.nn.functional.one_hot(classes, 7) * 0.9 + 0.1 / 7
    torch.testing.assert_close(
        task.loss(model, (images, classes)) / task.weight((images, classes)), -(target * log_p).sum(1).mean()
    )


MIXES = [{"mixup": 0.8, "cutmix": 0.0}, {"mixup": 0.0, "cutmix": 1.0}, {"mixup": 0.8, "cutmix": 1.0}]


def mixed(task, seed, *parts):
    return task.mix(parts, np.random.default_rng(seed))


@pytest.mark.parametrize("mixes", MIXES, ids=str)
def test_every_share_of_a_batch_is_mixed_as_the_whole_one_is(mixes):
    task, images, classes = Classification(16, **{**CLASSES, **mixes}), torch.rand(7, 3, 16, 16), torch.arange(7)
    around = [6, *range(7)]  # the last one comes before the first
    for seed in range(8):
        state = torch.get_rng_state()
        whole = mixed(task, seed, images[around], classes[around])
        assert torch.equal(torch.get_rng_state(), state)
        for share in ([0, 1, 2, 3], [3, 4, 5, 6, 7], [5, 6]):  # a sample before it, then its own
            part = mixed(task, seed, images[around][share], classes[around][share])
            for one, all_of_them in zip(part, whole, strict=True):
                assert torch.equal(one, all_of_them[share[0] : share[-1]])


def test_mixup_weighs_images_as_their_classes_and_cutmix_shares_them_by_area():
    images, classes = torch.rand(6, 3, 16, 16), torch.tensor([6, 0, 1, 2, 3, 4])
    weights = set()
    for seed in range(8):
        both, shares = mixed(Classification(16, **{**CLASSES, **MIXES[0]}), seed, images, classes)
        own = shares[torch.arange(5), classes[1:]]
        assert len(own.unique()) == 1
        torch.testing.assert_close(shares[torch.arange(5), classes[:-1]], 1 - own)
        torch.testing.assert_close(both, images[1:] * own[0] + images[:-1] * (1 - own[0]))
        weights.add(own[0].item())
        pasted, shares = mixed(Classification(16, **{**CLASSES, **MIXES[1]}), seed, images, classes)
        kept = (pasted == images[1:]).all(1)
        assert torch.equal(pasted, torch.where(kept[:, None], images[1:], images[:-1]))
        torch.testing.assert_close(shares[torch.arange(5), classes[1:]], kept.float().mean((1, 2)))
    assert len(weights) > 4


def test_tasks_that_mix_nothing_say_so():
    assert Classification(16, **CLASSES).mix is None
    assert Segmentation(8, **PIXELS).mix is None
    assert Inpainting(16, TOKENS).mix is None


def test_segmentation_s_loss_is_the_mean_cross_entropy_of_labelled_pixels():
    task, model = Segmentation(8, **PIXELS), Linear(4)
    images, labels = torch.randn(2, 3, 8, 8), torch.randint(4, (2, 8, 8))
    labels[:, :3] = 255
    log_p = model(images).log_softmax(1)
    expected = -torch.stack(
        [log_p[b, labels[b, y, x], y, x] for b in range(2) for y in range(3, 8) for x in range(8)]
    ).mean()
    torch.testing.assert_close(task.loss(model, (images, labels)) / task.weight((images, labels)), expected)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 24), (19, 21), (5, 30)])
@pytest.mark.parametrize("stride", [8, 5, 3])
def test_windows_agree_with_one_look_where_a_model_looks_at_single_pixels(height, width, stride):
    task, model = Segmentation(8, **{**PIXELS, "stride": stride}), Linear(4)
    images = torch.randn(2, 3, height, width)
    torch.testing.assert_close(task.predict(model, images), model(images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("extent", "stride", "starts"), [(8, 8, [0]), (16, 8, [0, 8]), (20, 8, [0, 8, 12]), (9, 3, [0, 1])]
)
def test_windows_cover_an_axis_and_end_with_it(extent, stride, starts):
    assert Segmentation(8, **{**PIXELS, "stride": stride}).starts(extent) == starts


def test_an_image_enters_centred():
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8))
    batch = image[None], torch.zeros(1, 8, 8, dtype=torch.uint8)
    own = Segmentation(8, **{**PIXELS, "input": "image_mean"}).enter(batch)[0][0]
    torch.testing.assert_close(own, image / 255 - (image / 255).mean((1, 2), keepdim=True))
    imagenet = Segmentation(8, **PIXELS).enter(batch)[0][0]
    torch.testing.assert_close(imagenet[1], (image[1] / 255 - 0.456) / 0.224)


@pytest.mark.parametrize("name", TASKS)
def test_images_travel_as_bytes(name):
    task = {"inpainting": Inpainting(16, TOKENS), "classification": Classification(16, **CLASSES)}.get(name)
    image = torch.zeros(3, 16, 16, dtype=torch.uint8)
    label = torch.zeros(16, 16, dtype=torch.uint8) if name == "segmentation" else torch.tensor(1)
    sample = (task or Segmentation(8, **PIXELS)).prepare((image, label), np.random.default_rng(0))
    assert [part.element_size() for part in sample if part.ndim > 0] == [1] * len([p for p in sample if p.ndim > 0])


@pytest.mark.parametrize("how", ["image_mean", "imagenet"])
@pytest.mark.parametrize("side", [16, 28, 32, 64, 96, 224])
@pytest.mark.parametrize("count", [1, 4, 9])
def test_a_batch_is_centred_as_each_of_its_images_bit_for_bit(how, side, count):
    images = torch.from_numpy(np.random.default_rng(side).integers(0, 256, (count, 3, side, side), dtype=np.uint8))
    alone = []
    for image in images:  # in three steps, as one image at a time
        x = image.float() / 255
        mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        alone.append(x - x.mean((1, 2), keepdim=True) if how == "image_mean" else (x - mean) / std)
    assert torch.equal(centred(images, how), torch.stack(alone))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("classification", {"num_classes": 1}),
        ("classification", {"mixup": -0.1}),
        ("classification", {"cutmix": -1.0}),
        ("classification", {"label_smoothing": 1.0}),
        ("segmentation", {"num_classes": 255}),
        ("segmentation", {"stride": 0}),
        ("segmentation", {"stride": 9}),
    ],
    ids=str,
)
def test_impossible_options_name_their_key(name, change):
    options = CLASSES if name == "classification" else PIXELS
    with pytest.raises(ConfigError) as error:
        TASKS[name](8, **{**options, **change})
    assert {p.key for p in error.value.problems} == {tuple(change)}

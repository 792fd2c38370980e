import json

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from sklearn.metrics import confusion_matrix, jaccard_score, top_k_accuracy_score

from afno_repro.errors import DataError
from afno_repro.metrics import PSNR, SSIM, MeanIoU, TopK, ssim_map

pytestmark = pytest.mark.fast


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    target = rng.random((3, 3, 24, 31))
    prediction = np.clip(target + 0.1 * rng.standard_normal(target.shape), 0, 1)
    masks = rng.random((3, 24, 31)) < 0.4
    return tuple(torch.from_numpy(x) for x in (prediction, target, masks))


def reference_ssim(x, y):
    options = {
        "channel_axis": 0,
        "gaussian_weights": True,
        "sigma": 1.5,
        "use_sample_covariance": False,
        "data_range": 1.0,
        "full": True,
    }
    return structural_similarity(x.numpy(), y.numpy(), **options)


def test_psnr_equals_scikit_image(batch):
    metric = PSNR()
    metric.update(*batch)
    prediction, target, masks = (x.numpy() for x in batch)
    expected = [peak_signal_noise_ratio(t, p, data_range=1) for t, p in zip(target, prediction, strict=True)]
    masked = [
        peak_signal_noise_ratio(t[:, m], p[:, m], data_range=1)
        for t, p, m in zip(target, prediction, masks, strict=True)
    ]
    assert metric.compute() == pytest.approx({"psnr": np.mean(expected), "psnr_masked": np.mean(masked)}, abs=1e-5)


def test_ssim_equals_scikit_image(batch):
    metric = SSIM()
    metric.update(*batch)
    references = [reference_ssim(p, t) for p, t in zip(*batch[:2], strict=True)]
    masked = [full[:, m.numpy()].mean() for (_, full), m in zip(references, batch[2], strict=True)]
    assert metric.compute() == pytest.approx(
        {"ssim": np.mean([r[0] for r in references]), "ssim_masked": np.mean(masked)}, abs=1e-5
    )


def test_the_whole_ssim_map_equals_scikit_image_to_its_border(batch):
    full = np.stack([reference_ssim(p, t)[1] for p, t in zip(*batch[:2], strict=True)])
    torch.testing.assert_close(ssim_map(*batch[:2]), torch.from_numpy(full), atol=1e-10, rtol=0)


def test_a_mean_over_batches_is_the_mean_over_images(batch):
    whole, parts = PSNR(), PSNR()
    whole.update(*batch)
    for part in (slice(0, 1), slice(1, 3)):
        parts.update(*(x[part] for x in batch))
    assert parts.compute() == pytest.approx(whole.compute())


def test_top_k_equals_scikit_learn():
    rng = np.random.default_rng(0)
    scores, classes = rng.standard_normal((200, 9)), rng.integers(9, size=200)
    metric = TopK()
    metric.update(torch.from_numpy(scores), torch.from_numpy(classes))
    expected = {f"top{k}": 100 * top_k_accuracy_score(classes, scores, k=k, labels=range(9)) for k in (1, 5)}
    assert metric.compute() == pytest.approx(expected)


def test_mean_iou_equals_scikit_learn_over_the_whole_data_set():
    rng = np.random.default_rng(0)
    labels = rng.integers(5, size=(6, 13, 11))
    predictions = np.where(rng.random(labels.shape) < 0.4, labels, rng.integers(5, size=labels.shape))
    ignored = rng.random(labels.shape) < 0.2
    metric = MeanIoU(5, "skip")
    for i in range(0, 6, 2):
        metric.update(
            torch.from_numpy(predictions[i : i + 2]), torch.from_numpy(np.where(ignored, 255, labels)[i : i + 2])
        )
    seen = ~ignored
    assert np.array_equal(metric.confusion.numpy(), confusion_matrix(labels[seen], predictions[seen]))
    expected = 100 * jaccard_score(labels[seen], predictions[seen], average="macro")
    assert metric.compute() == pytest.approx(
        {"miou": expected, "pixel_accuracy": 100 * np.mean(labels[seen] == predictions[seen])}
    )


@pytest.mark.parametrize(("absent", "miou"), [("skip", 100.0), ("zero", 50.0)])
def test_a_class_that_nobody_has_is_skipped_or_counts_nothing(absent, miou):
    metric, label = MeanIoU(4, absent), torch.tensor([[[0, 2], [2, 255]]])
    metric.update(torch.where(label == 255, 3, label), label)
    assert metric.compute()["miou"] == miou


@pytest.mark.parametrize("kind", ["psnr", "top", "miou"])
def test_parts_merged_equal_the_whole(kind):
    make = {"psnr": PSNR, "top": TopK, "miou": lambda: MeanIoU(3, "skip")}[kind]
    torch.manual_seed(0)
    images = torch.rand(4, 3, 9, 9), torch.rand(4, 3, 9, 9), torch.rand(4, 9, 9) < 0.5
    batch = {
        "psnr": images,
        "top": (torch.randn(4, 6), torch.tensor([0, 5, 2, 2])),
        "miou": (torch.randint(3, (4, 5, 5)), torch.randint(3, (4, 5, 5))),
    }[kind]
    whole, first, second = make(), make(), make()
    whole.update(*batch)
    first.update(*(x[:1] for x in batch))
    second.update(*(x[1:] for x in batch))
    second.merge(json.loads(json.dumps(first.seen())))
    assert second.compute() == whole.compute()


def test_an_image_equal_to_its_target_counts_100_db_and_leaves_the_mean_finite(batch):
    prediction, target, mask = batch
    metric = PSNR()
    metric.update(target[:1], target[:1], mask[:1])
    metric.update(prediction[1:], target[1:], mask[1:])
    others = PSNR()
    others.update(prediction[1:], target[1:], mask[1:])
    for key, value in metric.compute().items():
        count = len(target) - 1
        assert value == pytest.approx((100.0 + count * others.compute()[key]) / (count + 1))


def test_labels_that_are_all_ignored_are_told_and_no_division_by_zero():
    metric = MeanIoU(3, "skip")
    metric.update(torch.zeros(1, 4, 4, dtype=torch.int64), torch.full((1, 4, 4), 255))
    with pytest.raises(DataError, match="all are ignored"):
        metric.compute()

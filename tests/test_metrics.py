import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from afno_repro.metrics import PSNR, SSIM, ssim_map


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    target = rng.random((3, 3, 24, 31))
    prediction = np.clip(target + 0.1 * rng.standard_normal(target.shape), 0, 1)
    masks = rng.random((3, 24, 31)) < 0.4
    return tuple(torch.from_numpy(x) for x in (prediction, target, masks))


def reference_ssim(x, y):
    options = {"channel_axis": 0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0, "full": True}
    return structural_similarity(x.numpy(), y.numpy(), **options)


def test_psnr_equals_scikit_image(batch):
    metric = PSNR()
    metric.update(*batch)
    prediction, target, masks = (x.numpy() for x in batch)
    expected = [peak_signal_noise_ratio(t, p, data_range=1) for t, p in zip(target, prediction, strict=True)]
    masked = [peak_signal_noise_ratio(t[:, m], p[:, m], data_range=1) for t, p, m in zip(target, prediction, masks, strict=True)]
    assert metric.compute() == pytest.approx({"psnr": np.mean(expected), "psnr_masked": np.mean(masked)}, abs=1e-5)


def test_ssim_equals_scikit_image(batch):
    metric = SSIM()
    metric.update(*batch)
    references = [reference_ssim(p, t) for p, t in zip(*batch[:2], strict=True)]
    masked = [full[:, m.numpy()].mean() for (_, full), m in zip(references, batch[2], strict=True)]
    assert metric.compute() == pytest.approx({"ssim": np.mean([r[0] for r in references]), "ssim_masked": np.mean(masked)}, abs=1e-5)


def test_the_whole_ssim_map_equals_scikit_image_to_its_border(batch):
    full = np.stack([reference_ssim(p, t)[1] for p, t in zip(*batch[:2], strict=True)])
    torch.testing.assert_close(ssim_map(*batch[:2]), torch.from_numpy(full), atol=1e-10, rtol=0)


def test_a_mean_over_batches_is_the_mean_over_images(batch):
    whole, parts = PSNR(), PSNR()
    whole.update(*batch)
    for part in (slice(0, 1), slice(1, 3)):
        parts.update(*(x[part] for x in batch))
    assert parts.compute() == pytest.approx(whole.compute())

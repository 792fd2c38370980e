import numpy as np
import pytest
import torch

from afno_repro.contents import Contents
from afno_repro.data.loader import loader
from afno_repro.data.photos import PHOTOS, photograph, photos
from afno_repro.data.samples import TRAIN, Samples, TrainingBatches, validation_batches
from afno_repro.errors import ConfigError, DataError

pytestmark = pytest.mark.fast

OPTIONS = {"train": ["coffee"], "test": ["flower"], "train_crops": 20, "test_crops": 6, "side": [32, 200]}


def test_every_photograph_is_inside_the_installed_packages():
    for name in PHOTOS:
        image = photograph(name)
        assert image.dtype == torch.uint8
        assert image.shape[0] == 3
        assert min(image.shape[1:]) >= 172


def test_crops_have_the_size_asked_for_and_follow_from_their_generator(tmp_path):
    train, _ = photos(16, 1.0, 0, tmp_path, **OPTIONS)
    first, again, other = (train.example(0, np.random.default_rng(seed))[0] for seed in (3, 3, 4))
    assert first.shape == (3, 16, 16)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    "change",
    [{"test": ["coffee"]}, {"train": ["lena"]}, {"train_crops": 0}, {"side": [200, 32]}, {"side": [32]}, {"test": []}],
    ids=str,
)
def test_impossible_choices_of_photographs_name_their_key(change, tmp_path):
    with pytest.raises(ConfigError) as error:
        photos(16, 1.0, 0, tmp_path, **{**OPTIONS, **change})
    assert {p.key for p in error.value.problems} == {tuple(change)}


def test_no_photograph_is_trained_and_tested_on_in_any_spec():
    from afno_repro.spec.plan import plan_runs
    from tests.specs import all_specs

    for spec in all_specs():
        for scale in spec.structure.scales:
            for run in plan_runs(spec, scale).runs:
                if run.config.data.name == "photos":
                    assert not set(run.config.data.options["train"]) & set(run.config.data.options["test"])


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_samples_do_not_depend_on_the_number_of_workers(workers, tmp_path):
    images, _ = photos(16, 1.0, 0, tmp_path, **OPTIONS)

    def batches(count):
        samples = Samples(images, keep, seed=5, stream=TRAIN)
        return [torch.stack(list(b)) for b in loader(samples, TrainingBatches(20, 4, 2, 5, 0), count, pin_memory=False)]

    for ours, expected in zip(batches(workers), batches(0), strict=True):
        assert torch.equal(ours, expected)


def keep(example, rng):
    return example[0]


def test_an_epoch_is_a_permutation_and_a_later_start_continues_it():
    whole = list(TrainingBatches(10, 3, 4, seed=1, start=0))
    assert len(whole) == 4 * 3
    for epoch in range(4):
        keys = [key for batch in whole[3 * epoch : 3 * epoch + 3] for key in batch]
        assert {e for e, _ in keys} == {epoch}
        assert len({i for _, i in keys}) == 9
    assert list(TrainingBatches(10, 3, 4, seed=1, start=7)) == whole[7:]
    assert whole[:3] != list(TrainingBatches(10, 3, 4, seed=2, start=0))[:3]


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_processes_share_each_batch_and_know_the_sample_before_their_share(ranks):
    whole = list(TrainingBatches(17, 5, 3, seed=1, start=0))
    shares = [TrainingBatches(17, 5, 3, 1, 0, rank, ranks) for rank in range(ranks)]
    more = [TrainingBatches(17, 5, 3, 1, 0, rank, ranks, before=True) for rank in range(ranks)]
    for batch, own, with_one_before in zip(whole, zip(*shares, strict=True), zip(*more, strict=True), strict=True):
        assert [key for share in own for key in share] == batch
        for share, longer in zip(own, with_one_before, strict=True):
            assert longer == [batch[batch.index(share[0]) - 1], *share]


def test_validation_sees_every_image_once():
    assert [i for batch in validation_batches(7, 3) for _, i in batch] == list(range(7))


def make_imagenet(root, classes=2, images=4):
    from PIL import Image

    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for c in range(classes):
            folder = root / "imagenet" / split / f"n{c:08d}"
            folder.mkdir(parents=True)
            for i in range(images):
                mode = ["RGB", "L", "CMYK"][i % 3]
                shape = (40, 50) if mode == "L" else (40, 50, len(mode))
                Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8), mode).save(folder / f"{i}.JPEG")


def test_an_image_folder_of_any_mode_becomes_rgb(tmp_path):
    from afno_repro.data.imagenet import imagenet

    make_imagenet(tmp_path)
    train, val = imagenet(
        16, 1.0, 0, tmp_path, crop_fraction=0.875, skip=[], interpolation="bilinear", tuning=None, max_megapixels=100
    )
    assert (len(train), len(val)) == (8, 8)
    assert all(train.example(i, np.random.default_rng(0))[0].shape == (3, 40, 50) for i in range(8))
    assert all(val.example(i, np.random.default_rng(0))[0].shape == (3, 16, 16) for i in range(8))


def test_a_fraction_is_a_fixed_choice_of_each_class(tmp_path):
    from afno_repro.data.imagenet import imagenet

    make_imagenet(tmp_path)
    chosen = [
        [f.parent.name for f in imagenet(16, 0.5, seed, tmp_path, 0.875, [], "bilinear", None, 100)[0].files]
        for seed in (0, 0, 1)
    ]
    assert chosen[0] == chosen[1] == ["n00000000"] * 2 + ["n00000001"] * 2
    prints = {
        imagenet(16, 0.5, seed, tmp_path, 0.875, [], "bilinear", None, 100)[0].fingerprint(
            Contents(tmp_path / "memory")
        )
        for seed in range(8)
    }
    assert len(prints) > 1


def test_a_missing_or_empty_folder_says_what_layout_is_expected(tmp_path):
    from afno_repro.data.imagenet import imagenet

    with pytest.raises(DataError, match=r"imagenet/train/CLASS/\*\.JPEG"):
        imagenet(16, 1.0, 0, tmp_path, 0.875, [], "bilinear", None, 100)
    (tmp_path / "imagenet" / "train" / "n0").mkdir(parents=True)
    with pytest.raises(DataError, match="1 class folders without images"):
        imagenet(16, 1.0, 0, tmp_path, 0.875, [], "bilinear", None, 100)


def test_a_broken_image_is_named(tmp_path):
    from afno_repro.data.imagenet import imagenet

    make_imagenet(tmp_path)
    broken = tmp_path / "imagenet/train/n00000000/0.JPEG"
    broken.write_bytes(broken.read_bytes()[:100])
    with pytest.raises(DataError, match=r"n00000000/0\.JPEG"):
        imagenet(16, 1.0, 0, tmp_path, 0.875, [], "bilinear", None, 100)[0].example(0, np.random.default_rng(0))

"""Which runs cannot be done for lack of data that fit them, said before any work."""

from afno_repro.config import Machine, RunConfig
from afno_repro.data import load_data
from afno_repro.data.samples import Images
from afno_repro.data.transforms import WHOLE
from afno_repro.errors import DataError
from afno_repro.spec.plan import Run


def absent_data(runs: list[Run], machine: Machine) -> dict[str, str]:
    """By digest, what data are not found, also for runs that start from such a run; equal data are looked at once.

    Parents come before the runs that start from them.
    """
    reasons: dict[str, str] = {}
    absent: dict[str, str] = {}
    for run in runs:
        recipe = run.config.train and (run.config.train.augment, run.config.train.batch_size)
        key = repr((run.config.data, run.config.task.options.get("num_classes"), recipe))
        if key not in reasons:
            reasons[key] = _reason(run.config, machine)
        reason = reasons[key] or absent.get(run.config.init or "", "")
        if reason:
            absent[run.digest] = reason
    return absent


def _reason(config: RunConfig, machine: Machine) -> str:
    """Why a run's data cannot be used, or nothing."""
    if config.data.name is None:
        return ""
    try:
        train, _ = load_data(config.data, machine.data_root)
        odd = _of_another_size(train, config)
    except DataError as error:
        return str(error)
    if odd is not None:
        size, asked = config.data.image_size, config.train.augment["name"] if config.train else ""
        return (
            f"{config.data.name}: has training images of {odd[1]}x{odd[0]} pixels, the spec asks for {size}x{size}, "
            f"and its augmentation {asked!r} leaves them so\n"
            "  choose one that crops, like random_crop, or resize the images"
        )
    if config.train is not None and len(train) < config.train.batch_size:
        return f"{config.data.name}: has {len(train)} training images, less than a batch of {config.train.batch_size}"
    classes = config.task.options.get("num_classes")
    if classes is None or train.num_classes == classes:
        return ""
    has = f"{train.num_classes} classes" if train.num_classes else "no classes that training and validation share"
    return f"{config.data.name}: has {has}, the spec asks for {classes}"


def _of_another_size(train: Images, config: RunConfig) -> tuple[int, int] | None:
    """The size of a training image that is not the spec's, where the augmentation does not make it so."""
    if config.train is None or config.train.augment["name"] not in WHOLE:
        return None
    size = config.data.image_size
    return next((found for found in sorted(train.sizes()) if found != (size, size)), None)

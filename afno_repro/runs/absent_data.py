"""Which runs cannot be done for lack of data, said before any work."""

from afno_repro.config import Machine, RunConfig
from afno_repro.data import load_data
from afno_repro.errors import DataError
from afno_repro.spec.plan import Run


def absent_data(runs: list[Run], machine: Machine) -> dict[str, str]:
    """By digest, what data are not found, also for runs that start from such a run; equal data are looked at once.

    Parents come before the runs that start from them.
    """
    reasons: dict[str, str] = {}
    absent: dict[str, str] = {}
    for run in runs:
        key = repr((run.config.data, run.config.task.options.get("num_classes")))
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
    except DataError as error:
        return str(error)
    classes = config.task.options.get("num_classes")
    if classes is None or train.num_classes == classes:
        return ""
    has = f"{train.num_classes} classes" if train.num_classes else "no classes that training and validation share"
    return f"{config.data.name}: has {has}, the spec asks for {classes}"

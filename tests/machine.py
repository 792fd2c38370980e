"""A machine for tests: one CPU thread, nothing side by side."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from afno_repro.config import Machine


def machine_at(root: Path, **changes: Any) -> Machine:
    """The machine with data in a folder and runs below it."""
    machine = Machine(
        device="cpu",
        devices=1,
        micro_batch=None,
        fitted=False,
        activation_checkpointing=False,
        compile=False,
        jobs=1,
        gpus=(),
        threads=1,
        num_workers=0,
        data_root=root,
        runs_root=root / "runs",
        checkpoint_every_s=600.0,
        tensorboard=False,
        worker=False,
        code={"commit": None, "dirty": None, "source": "0" * 16, "code": "a test"},
    )
    return replace(machine, **changes)

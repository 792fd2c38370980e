from pathlib import Path

import pytest

from afno_repro.cli import EXTRAS
from afno_repro.errors import ConfigError
from afno_repro.runs import machine
from afno_repro.runs.machine import Asked, find_machine


def test_another_log_than_tensorboard_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="--log wandb: must be tensorboard"):
        find_machine(Asked("cpu", log="wandb"), tmp_path, tmp_path)


def test_without_its_package_a_log_is_refused_before_any_work_and_the_extra_is_known(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError) as error:
        find_machine(Asked("cpu", log="tensorboard"), tmp_path, tmp_path)
    assert EXTRAS[error.value.name] == "tensorboard"
    assert not list(Path(tmp_path).iterdir())

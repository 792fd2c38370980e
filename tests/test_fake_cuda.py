"""Runs on fake CUDA tensors, in a process of their own: no device is mixed, no step waits; planted faults are found."""

import os
import shutil
import subprocess
import sys
from itertools import starmap

import pytest
import torch

from afno_repro.mixers import MIXERS
from afno_repro.tasks import TASKS
from afno_repro.visualize.visuals import VISUALS
from tests import fake_cuda
from tests.errors import COMPILERS
from tests.specs import ROOT

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="a library is preloaded"),
    pytest.mark.skipif(not any(map(shutil.which, COMPILERS)), reason="needs a C compiler"),
    pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="needs a build of PyTorch for CUDA"),
]


def python(folder, *options):
    """The output of tests.fake_cuda, which sees no GPU, and its exit code."""
    compiler = next(filter(None, map(shutil.which, COMPILERS)))
    library = folder / "no_accelerator.so"
    source = ROOT / "tests/no_accelerator.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    environment = {**os.environ, "LD_PRELOAD": str(library), "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", "tests.fake_cuda", *options]
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True)
    return done.stdout + done.stderr, done.returncode


def test_every_mixer_backbone_head_and_task_trains_is_evaluated_and_drawn(tmp_path):
    said, code = python(tmp_path)
    assert code == 0, said
    expected = set().union(*starmap(fake_cuda.features, fake_cuda.every()))
    assert expected >= {f"mixer {name}" for name in MIXERS} | {f"task {name}" for name in (*TASKS, *VISUALS)}
    seen = {feature for line in said.splitlines() for feature in line.partition(": ")[2].split(", ")}
    assert expected <= seen


@pytest.mark.slow
def test_every_row_of_every_spec_trains_is_evaluated_and_drawn(tmp_path):
    said, code = python(tmp_path, "--every")
    assert code == 0, said


def test_faults_that_are_planted_are_found(tmp_path):
    said, code = python(tmp_path, "--planted")
    assert code == 0, said
    assert said.count("found: ") == len(fake_cuda.PLANTED)

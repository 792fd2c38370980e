"""Types, checked beside the other tests: on one core it takes most of a minute."""

import subprocess
import sys

from tests.specs import ROOT


def test_the_types_of_the_package_are_sound():
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

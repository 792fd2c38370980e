"""What a shell completes, as it asks for it: commands, specs, rows, scales, and nothing that is slow to import."""

import os
import subprocess
import sys

import pytest

from tests.specs import write_spec

ASKED = """
import sys
sys.argv[0] = "afno"
from afno_repro.cli import main
try:
    main()
except SystemExit:
    print(*{"torch", "pandas", "scipy", "matplotlib"} & {*sys.modules}, file=sys.stderr)
"""


def completed(line, root):
    words = line.split(" ")
    asked = {"_AFNO_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        [sys.executable, "-c", ASKED], cwd=root, env={**os.environ, **asked}, capture_output=True, text=True
    )
    assert done.stderr == "\n"
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("afno re", ["report"]),
        ("afno run sm", ["small"]),
        ("afno run table", [f"table{n}" for n in range(1, 7)]),
        ("afno run al", ["all"]),
        ("afno run few", ["few-shot"]),
        ("afno list fig5", ["fig5"]),
        ("afno run small --row ", ["gfn", "afno", "fill_mean"]),
        ("afno run table2 --row self", ["self_attention"]),
        ("afno run no_such --row ", []),
        ("afno pretrain broken --row ", []),
        ("afno run small --scale p", ["paper"]),
        ("afno report --scale s", ["smoke", "small"]),
    ],
)
def test_the_shell_completes(line, found, tmp_path):
    write_spec(tmp_path)
    write_spec(tmp_path, "{", "broken")
    (tmp_path / "experiments/shots.yaml").write_text("group: few-shot\n")
    assert completed(line, tmp_path) == found


def test_specs_of_another_root_are_completed(tmp_path):
    write_spec(tmp_path / "elsewhere", name="theirs")
    assert completed("afno run --root elsewhere the", tmp_path) == ["theirs"]

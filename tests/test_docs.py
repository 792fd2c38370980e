"""What the README says can be done can be done."""

import re

import pytest
from typer.main import get_command

from afno_repro.cli import app
from tests.command import afno
from tests.suite.specs import ROOT

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)


def test_the_first_two_blocks_are_one_line_each():
    for (language, text), ending in zip(BLOCKS[:2], (".venv/bin/afno run table2", ".venv/bin/pytest -q"), strict=True):
        assert language == "bash"
        assert text.count("\n") == 1
        assert text.strip().endswith(ending)


def test_ci_runs_the_second_block():
    assert "block == 2" in (ROOT / ".ci" / "run").read_text()


def test_the_mixer_example_runs(capsys):
    (code,) = (text for language, text in BLOCKS if language == "python")
    assert len([line for line in code.splitlines() if line]) == 5
    exec(code, {})
    assert capsys.readouterr().out == "torch.Size([8, 14, 14, 64])\n"


@pytest.mark.parametrize("command", sorted(get_command(app).commands))
def test_every_command_stands_in_the_readme(command):
    assert f"`afno {command}" in README


@pytest.mark.parametrize("line", re.findall(r"^\| `afno (.*?)` \|", README, re.MULTILINE))
def test_every_command_in_the_readme_is_accepted(line):
    name, *arguments = line.split()
    options = {o for p in get_command(app).commands[name].params for o in (*p.opts, *p.secondary_opts)}
    assert {a for a in arguments if a.startswith("--")} <= options


def test_the_committed_specs_check():
    afno("check", "all", root=ROOT)

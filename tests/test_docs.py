"""What the README and docs/ say can be done can be done: links, commands, and the worked examples word by word."""

import csv
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from skimage.data import chelsea
from skimage.io import imsave
from typer.main import get_command
from typer.testing import CliRunner

from afno_repro.cli import app
from afno_repro.mixers import AFNO
from afno_repro.spec.places import Places, sound_specs
from tests.command import afno, python_path, with_path
from tests.specs import ROOT

README = (ROOT / "README.md").read_text()
PAGES = {path.name: path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
BLOCK = re.compile(r"(?:<!-- runs(?:: (\w+))? -->\n)?```(\w+)\n(.*?)```", re.DOTALL)
BLOCKS = [(language, text) for _, language, text in BLOCK.findall(README)]
ADDING = BLOCK.findall(PAGES["adding.md"])


def quoted(text: str) -> list[str]:
    """The `afno ...` commands of a page: lines of code blocks, and code in sentences and tables."""
    lines = [line for _, language, block in BLOCK.findall(text) if language == "bash" for line in block.splitlines()]
    inline = re.findall(r"`([^`\n]+)`", BLOCK.sub("", text))
    found = [
        re.search(r"(?:^|[\s/])(?:afno|-m afno_repro) (.+)", line)
        for line in [*lines, *(part for part in inline if part.startswith("afno "))]
    ]
    return [match[1] for match in found if match]


COMMANDS = sorted({(page, command) for page, text in PAGES.items() for command in quoted(text) if "..." not in command})
RUNNABLE = [
    line
    for name, text in PAGES.items()
    if name != "adding.md"
    for line in re.findall(r"<!-- runs -->\n```bash\n(.*?)```", text, re.DOTALL)
]


def test_the_first_two_blocks_are_one_line_each():
    for (language, text), ending in zip(
        BLOCKS[:2], (".venv/bin/afno run table2 --seeds 1", ".venv/bin/pytest -q -n auto --dist loadfile"), strict=True
    ):
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


def test_the_network_of_ones_own_runs_and_has_the_mixer_of_table_2(capsys):
    (code,) = (text for _, language, text in BLOCK.findall(PAGES["own-code.md"]) if language == "python")
    made: dict = {}
    exec(code, made)
    weights, shape = capsys.readouterr().out.splitlines()
    assert shape == "(1, 3, 64, 48)"
    (spec,) = sound_specs(Places(ROOT, ROOT / "runs"), "table2")
    model = {**spec.structure.model["backbone"], **spec.row("afno").model["backbone"]}
    options = {key: value for key, value in spec.row("afno").model["mixer"].items() if key != "name"}
    assert ", ".join(f"{key}={json.dumps(value)}" for key, value in options.items()) in code
    assert f"depth={model['depth']}, image_size={spec.structure.stages['cost']['data']['image_size']}" in code
    named = AFNO(model["embed_dim"], (8, 8), **options)
    assert str(made["network"].blocks[0].mixer) == str(named)
    assert weights == f"{sum(p.numel() for p in named.parameters())} weights mix tokens"


@pytest.mark.fast
def test_the_numbers_of_the_readme_are_those_of_the_reference():
    tiny = ROOT / "results/reference/tiny"
    rows = {row["mixer"]: row for row in csv.DictReader((tiny / "table2.csv").open())}
    lines = [line.strip("| ").split(" | ") for line in README.splitlines() if line.count(" | ") == 4][1:]
    assert len(lines) == 6
    for mixer, *cells in lines:
        row = rows[mixer]
        qualities = [f"{row[key]} ± {row[f'{key}_spread']}".removesuffix(" ± ") for key in ("ssim", "psnr")]
        assert cells == [row["gflops"] or "–", row["gflops_paper"] or "–", *qualities]
    verdicts = list(csv.DictReader((tiny / "claims.csv").open()))
    own = [each["verdict"] for each in verdicts if not each["under"]]
    corrected = [each["verdict_holm"] for each in verdicts if each["p_holm"]]
    sentence = (
        f"Of its {len(own)} claims at tiny scale {own.count('holds')} hold, {own.count('fails')} fail, "
        f"{own.count('undecided')} are undecided, and of the {len(corrected)} that are tested over seeds Holm's "
        f"correction leaves {len(corrected) - corrected.count('undecided')} decided"
    )
    assert sentence in README
    costs = re.search(
        r"Of the paper's 35 distinct costs, (\d+) follow from what it states, (\d+) .*, and (\d+) do\s", README
    )
    assert costs is not None
    said = (tiny.parent / "costs.md").read_text()
    assert [int(costs[i]) for i in (1, 2, 3)] == [
        int(n) for n in re.findall(r"(\d+) (?:round to|do after|do not)", said.partition("| table")[0])
    ]


def test_the_readme_fits_two_screens():
    assert len(README.splitlines()) <= 105


@pytest.mark.parametrize("command", sorted(get_command(app).commands))
def test_every_command_stands_in_the_readme(command):
    assert f"`afno {command}" in README


def test_the_help_and_the_readme_have_commands_in_the_order_of_use():
    rows = [line for line in README.splitlines() if line.startswith("| `afno ")]
    named = list(dict.fromkeys(name for row in rows for name in re.findall(r"`afno (\w+)", row.split(" | ")[0])))
    assert named == list(get_command(app).commands)
    assert named.index("list") < named.index("run") < named.index("report") < 3


def test_the_help_says_of_every_command_a_whole_sentence_at_80_columns():
    shown = CliRunner().invoke(app, ["--help"], terminal_width=80).output.partition("Commands:")[2]
    assert [line.split()[0] for line in shown.splitlines() if line] == list(get_command(app).commands)
    assert "..." not in shown


@pytest.mark.parametrize(
    ("page", "target"), [(page, link) for page, text in PAGES.items() for link in re.findall(r"\]\(([^)]+)\)", text)]
)
def test_every_relative_link_leads_somewhere(page, target):
    folder = ROOT if page == "README.md" else ROOT / "docs"
    assert target.startswith("https://") or (folder / target.partition("#")[0]).is_file()


def test_every_page_is_linked_in_the_readme():
    assert all(f"(docs/{page})" in README for page in PAGES if page != "README.md")


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_every_quoted_command_is_accepted(page, command):
    name, *arguments = shlex.split(command)
    found = get_command(app).commands[name]
    if arguments:  # else the sentence is about the command
        found.make_context(name, arguments)  # parses, and ends with a message where something is wrong


def test_the_job_for_kubernetes_is_whole_and_its_command_is_accepted():
    (text,) = (text for _, language, text in BLOCK.findall(PAGES["paper-scale.md"]) if language == "yaml")
    (container,) = yaml.safe_load(text)["spec"]["template"]["spec"]["containers"]
    program, name, *arguments = container["command"]
    assert program == "afno"
    assert get_command(app).commands[name].make_context(name, arguments).params["worker"]


@pytest.mark.parametrize(
    "path", re.findall(r"`((?:afno_repro|experiments|tests|results)/[\w./]+)`", "\n".join(PAGES.values()))
)
def test_every_file_that_the_pages_name_is_there(path):
    made = re.findall(r"^# (\S+/\S+)$", PAGES["adding.md"], re.MULTILINE)
    assert (
        path in (*made, "tests/mixers/test_axial_mean.py")
        or path.startswith(("results/tiny/", "results/small/", "results/paper/", "results/custom/"))
        or (ROOT / path).exists()
    )


@pytest.mark.parametrize(("path", "test"), re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", "\n".join(PAGES.values())))
def test_every_test_that_the_pages_name_is_there(path, test):
    assert f"def {test}(" in (ROOT / path).read_text()


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """A folder with the committed specs, in which Table 5 was run at smoke scale."""
    root = tmp_path_factory.mktemp("docs")
    shutil.copytree(ROOT / "experiments", root / "experiments")
    afno("run", "table5", "--scale", "smoke", "--device", "cpu", "--jobs", "1", root=root)
    return root


@pytest.mark.parametrize(
    "command", sorted({line.removeprefix("afno ") for block in RUNNABLE for line in block.splitlines()})
)
def test_the_commands_marked_as_running_run(smoke, command):
    assert afno(*shlex.split(command), root=smoke).stdout


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """A copy of the package and its tests, in which docs/adding.md is followed."""
    root = tmp_path_factory.mktemp("workshop")
    for name in ("afno_repro", "tests"):
        shutil.copytree(ROOT / name, root / name)
    (root / "experiments").mkdir()
    return root


def follow(root: Path, language: str, text: str) -> None:
    """Write a file whose first line is its path, or change one by a diff whose old lines are found once."""
    if language == "diff":
        name, *lines = text.splitlines(keepends=True)
        path = root / name.split()[1]
        for hunk in "".join(lines).split("@@\n"):
            parts = [(line[0], line[1:]) for line in hunk.splitlines(keepends=True)]
            old, new = ("".join(line for sign, line in parts if sign in signs) for signs in (" -", " +"))
            before = path.read_text()
            assert before.count(old) == 1, old
            path.write_text(before.replace(old, new))
    elif match := re.match(r"# (\S+/\S+)\n", text):
        (root / match[1]).write_text(text if language == "yaml" else text[match.end() :])


def test_the_worked_examples_work(workshop):
    """A table, then a mixer in it, a data set under it, a metric beside it, in the order of the page."""
    environment, forked, said = python_path(workshop), with_path(workshop), {}
    for part, language, text in ADDING:
        if language != "bash":
            follow(workshop, language, text)
        elif part:
            said[part] = [afno(*shlex.split(line)[1:], root=workshop, env=forked) for line in text.splitlines()]
        else:
            done = subprocess.run(
                [sys.executable, "-m", *shlex.split(text)],
                cwd=workshop,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout
            assert "passed" in done.stdout
    assert [len(each) for each in said.values()] == [2, 2, 1, 1]
    assert "axial mean" in said["mixer"][1].stdout
    assert "gfn/pretrain" not in said["mixer"][1].stderr  # it was finished
    assert "gfn/pretrain seed 0: ok" in said["data"][0].stderr
    assert "Certainty" in said["metric"][0].stdout
    assert "missing" not in said["metric"][0].stdout


def test_the_worked_example_is_trained_on_a_flat_folder_of_images(tmp_path):
    (tmp_path / "experiments").mkdir()
    follow(tmp_path, "yaml", ADDING[0][2])
    for _, language, text in BLOCK.findall(PAGES["data.md"]):
        if language == "diff":
            follow(tmp_path, language, text)
    for name, count in (("train", 24), ("val", 6)):
        folder = tmp_path / "data/holidays" / name
        folder.mkdir(parents=True)
        for i in range(count):
            imsave(folder / f"{i}.jpg", chelsea()[5 * i : 5 * i + 100, 5 * i : 5 * i + 150])
    said = afno("run", "axial", "--scale", "smoke", "--jobs", "1", root=tmp_path).stdout
    assert "PSNR" in said
    assert "missing" not in said


@pytest.mark.fast
@pytest.mark.parametrize("page", ["reliability.md", "troubleshooting.md"])
def test_the_tests_that_a_page_names_exist(page):
    named = set(re.findall(r"`(tests/\w[\w/]*\.py)(?:::(\w+))?`", PAGES[page]))
    assert named
    missing = [
        f"{file}::{test}"
        for file, test in sorted(named)
        if not (ROOT / file).is_file() or (test and f"def {test}(" not in (ROOT / file).read_text())
    ]
    assert missing == []

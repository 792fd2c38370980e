"""Words of unknown origin, from a spec or a record: only text, in every file that is written and on the terminal."""

import csv
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from afno_repro.commands.list import overview, runs_of
from afno_repro.commands.report import rewritten
from afno_repro.commands.run import shown
from afno_repro.commands.terminal import Plain, print_grid, say
from afno_repro.escape import csv_lines, md, visible
from afno_repro.runs.provenance import provenance
from afno_repro.runs.record import Record
from afno_repro.runs.store import committed_name, records_folder
from afno_repro.spec.places import Places
from afno_repro.spec.plan import Choice, plan_runs
from afno_repro.spec.reader import load_spec
from afno_repro.tables.costs import costs_markdown
from afno_repro.tables.document import Document, Figure, Section
from afno_repro.tables.page import html_page
from afno_repro.tables.table import build_table
from tests.command import afno
from tests.machine import machine_at
from tests.specs import SMALL, write_spec
from tests.tables.test_report import Page
from tests.test_fuzz_records import as_bytes

PIECES = (
    *(
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        '" onclick="x',
        "' x='",
        "a|b",
        "a\\|b",
        "a\\",
        "`|`",
        "``",
        "[a](javascript:x)",
        "![a](x)",
    ),
    *(
        "<a href=javascript:x>",
        "=1+1",
        "+1+1",
        "-1+1",
        "@SUM(1)",
        "\t=1",
        "\r=1",
        "\n=1",
        "\x1b[31mred",
        "\x9b31m",
        "\x1b]0;title\x07",
        "\u202egnp",
        "\0",
    ),
    *("$x$ $\\frac{$", "[red]x[/red]", "[/]", "# x", "1. x", "---", "{x}", "%s", "http://x.y/z", "-1", "+inf"),
)
FIELDS = (
    "A small table",
    "Backbone",
    "mean fill",
    "GFN",
    "Nothing is said.",
    "AFNO beats GFN",
    "dB",
    "GFLOPs",
    "PSNR",
    "pretrain.train.batch_size",
)


def spec_of(piece: str) -> str:
    """The small spec with the piece in each of its texts."""
    word = json.dumps(piece)
    text = SMALL.replace("[ViT, GFN]", f"[{word}, GFN]")
    for field in FIELDS:
        text = re.sub(rf"(?<=[:\[,] ){re.escape(field)}(?=[,\]}}\n])", lambda _: word, text)
    text = (
        text.replace("where: here", f"doubt: {word}, under: {word}, where: {word}")
        .replace("choice: 4", f"choice: {word}")
        .replace("group: inpainting", f"group: {word}")
    )
    return text + f"choices_of: other\nremarks: [{word}]\nfigures: [{{name: training, stage: pretrain, suffix: x}}]\n"


def made(root: Path, text: str, piece: str) -> Places:
    """A spec and its records, the piece in every field of these that a record may choose."""
    spec = load_spec(write_spec(root, text))
    folder = records_folder(root / "results/tiny", "small")
    folder.mkdir(parents=True, exist_ok=True)
    for (row, stage, seed), run in plan_runs(spec, "tiny").needs.items():
        made_with = provenance("a machine", machine_at(root), 2.0, piece.replace("/", "|"))  # which parts a training's
        made_with |= {
            "commit": piece,
            "python": piece,
            "device": piece,
            "packages": {**made_with["packages"], "torch": piece, piece: piece},
            piece: piece,
        }
        outcome = "diverged" if row == "gfn" and stage == "pretrain" else "ok"
        metrics = {piece: 1.0} if outcome != "ok" else {"gflops": 0.6, "psnr": -20.5, piece: 1.0}
        record = Record(piece, run.digest, run.config, outcome, metrics, {piece: [1.0]}, made_with)
        path = folder / committed_name(row, stage, seed)
        path.write_text(record.to_json())
        Record.from_json(path.read_text())
        path.with_suffix(".csv").write_text("step,loss\n1,2.0\n2,1.0\n")
    return Places(root, root / "runs")


def report(places: Places):
    from afno_repro.tables.rebuild import rebuild

    tables = rebuild(places, "tiny", Choice())
    return tables, {
        path.relative_to(places.root).as_posix(): path.read_bytes().decode()
        for path in (places.root / "results").rglob("*.*")
        if readable(path)
    }


def readable(path: Path) -> bool:
    return path.suffix in (".md", ".csv", ".html") and "records" not in path.parts


def skeleton(page: str) -> Counter[tuple[str, tuple[str, ...]]]:
    """The page's elements with the names of their attributes."""
    return Counter(
        (tag, tuple(sorted(key for key in attributes if key not in ("class", "scope"))))
        for tag, attributes in Page(page).tags
    )


def columns(line: str) -> int:
    """The separators of a Markdown line, by the rule that a backslash takes the next character's meaning."""
    return sum(found == "|" for found in re.findall(r"\\.|\||[^\\|]+|\\$", line))


@pytest.fixture(scope="module")
def harmless(tmp_path_factory):
    """What harmless words lead to."""
    root = tmp_path_factory.mktemp("harmless")
    return report(made(root, spec_of("word"), "word"))[1]


@pytest.mark.parametrize("piece", PIECES, ids=repr)
def test_hostile_words_are_words_in_every_file_and_on_the_terminal(tmp_path, capsys, harmless, piece):
    places = made(tmp_path, spec_of(piece), piece)
    tables, files = report(places)
    assert set(files) == set(harmless)
    for name, text in files.items():
        assert text.replace("\n", "").isprintable(), name
        if name.endswith(".csv"):
            for cell in [
                cell for line in csv.reader(text.splitlines()) for cell in line if cell[:1] in tuple("=+-@\t\r")
            ]:
                assert re.fullmatch(r"[-+]([0-9.]+|inf)", cell), cell
        elif name.endswith(".md"):
            lines = [columns(line) for line in text.splitlines() if line.startswith("| ")]
            assert lines == [columns(line) for line in harmless[name].splitlines() if line.startswith("| ")], name
            assert not re.search(r"(?<!\\)\]\((?![\w#./-]*\))", text)
            assert "<" not in re.sub(r'<a id="[\w-]+"></a>', "", text)
        else:
            assert skeleton(text) == skeleton(harmless[name])
            assert all(attributes["href"][0] == "#" for tag, attributes in Page(text).tags if tag == "a")
    assert "-20.50" in files["results/tiny/small.csv"]
    assert "<" not in re.sub(r'<a id="[\w-]+"></a>', "", costs_markdown(tables))
    capsys.readouterr()
    for answer in (
        shown(places, tables, "tiny", Choice()),
        rewritten(places, {"tiny": tables}),
        overview(places, ["tiny"], machine_at(tmp_path)),
        runs_of(places, "small", "tiny", machine_at(tmp_path)),
    ):
        answer.show()
        json.dumps(answer.value)
    for note in (Plain().note, say):
        note(piece)
    print_grid(piece, [piece], [[piece]])
    told = capsys.readouterr()
    assert (told.out + told.err).replace("\n", "").isprintable()


def test_no_command_prints_an_escape_from_a_file(tmp_path):
    escape = "\x1b[31m\x9b31m\x1b]0;x\x07"
    places = made(tmp_path, spec_of(f"x{escape}x"), escape)
    (records_folder(places.results("tiny"), "small") / committed_name("afno", "pretrain", 0)).write_text(
        f'{{"{escape}": 1}}'
    )
    for arguments in (("report",), ("list",), ("run", "small", "--dry-run"), ("profile", "small")):
        done = afno(*arguments, root=tmp_path)
        assert (done.stdout + done.stderr).replace("\n", "").isprintable(), arguments


def test_no_error_repeats_an_escape(tmp_path):
    escape = "\x1b[31m\x9b31m\x1b]0;x\x07"
    write_spec(tmp_path, SMALL + f"{json.dumps(escape)}: 1\n")
    for arguments in (("check", "small"), ("run", "small"), ("run", escape), ("run", "small", "--row", escape)):
        done = afno(*arguments, root=tmp_path, expect=2)
        assert (done.stdout + done.stderr).replace("\n", "").isprintable(), arguments


def test_a_record_that_says_nonsense_is_named_and_not_used(tmp_path):
    places = made(tmp_path, SMALL, "word")
    folder = records_folder(places.results("tiny"), "small")
    path = folder / committed_name("afno", "pretrain", 0)
    tree = {key: value for key, value in json.loads(path.read_text()).items() if key != "sha256"}
    for key, value in {
        "outcome": "<script>",
        "metrics": {"psnr": "=1"},
        "provenance": {},
        "digest": "../../x",
        "run_id": 5,
    }.items():
        path.write_bytes(as_bytes({**tree, key: value}))
        table = build_table(load_spec(tmp_path / "experiments/small.yaml"), "tiny", folder)
        assert table.cells["afno", "psnr"].state == "missing"
        assert len(table.stale) == 1


def test_a_link_to_a_script_is_none():
    page = html_page(Document("t", [], [Section("s", [Figure("f", "javascript:alert(1)//.png", b"0" * 5_000_000)])]))
    links = [attributes["href"] for tag, attributes in Page(page).tags if tag == "a"]
    assert links == ["javascript%3Aalert%281%29//.png"]


def test_numbers_in_csv_are_never_altered():
    line = ["-1", "-2.5e-3", "+3", "-inf", "-.5", -1, -1.5, "1e5"]
    assert csv_lines([line]) == "-1,-2.5e-3,+3,-inf,-.5,-1,-1.5,1e5\n"
    assert csv_lines([["-1_0", "-x", "＝1", " =1", "\t=1", "\r1", ""]]) == "'-1_0,'-x,'＝1,' =1,' =1,' 1,\n"


def test_visible_text_keeps_its_lines_and_loses_control_characters():
    assert visible("a\n  b\tc\x1b[1m\x9b\u202e é ± –") == "a\n  b c[1m é ± –"
    assert md("a\nb  c") == "a b c"


@pytest.mark.fast
@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("between $x$ and $$y$$", r"(?<!\\)\$"),
        ("see http://a.b and https://c.d", r"(?<!\\)://"),
        ("www.a.b", r"(?<!\\)\.a"),
        ("someone@a.b", r"(?<!\\)@"),
    ],
)
def test_formulas_and_bare_addresses_are_words_in_markdown(text, meaning):
    assert re.search(meaning, text)
    assert not re.search(meaning, md(text))
    assert re.sub(r"\\([$:.@])", r"\1", md(text)) == text


@pytest.mark.fast
@pytest.mark.parametrize("text", ["a;=1+1", "a; =1", "a;+1", "a;@x", "a;-1"])
def test_a_formula_after_a_semicolon_is_none_where_that_separates_cells(text):
    line = csv_lines([["first", text, 3]])
    assert not any(cell.strip('" \n')[:1] in tuple("=+-@") for cell in line.split(";")[1:])
    assert next(csv.reader([line])) == ["first", re.sub(r"(; ?)", r"\1'", text), "3"]

"""Tables as LaTeX: what they hold, and that an engine takes them, whatever words are in them."""

import csv
import re
import shutil
import subprocess

import pytest

from afno_repro.tables.latex import FITTED, tex
from tests.specs import ROOT
from tests.tables.test_hostile import PIECES

TABLES = sorted((ROOT / "results/reference/tiny").glob("*.tex"))


@pytest.mark.parametrize("table", TABLES, ids=lambda path: path.stem)
def test_each_row_of_a_table_has_as_many_cells_as_columns_and_its_values(table):
    lines = [line for line in table.read_text().splitlines() if line.endswith(r" \\")]
    columns = re.search(r"\\begin{tabular}{([lr]+)}", table.read_text())
    assert columns is not None
    rows = [re.split(r"(?<!\\)&", line.removesuffix(r"\\")) for line in lines]
    assert {len(row) for row in rows} == {len(columns[1])}
    values = list(csv.DictReader(table.with_suffix(".csv").open()))
    assert len(rows) == len(values) + 1
    for row, value in zip(rows[1:], values, strict=True):
        numbers = [value[key] for key in value if f"{key}_verdict" in value and value[key]]
        assert set(numbers) <= {cell.split()[0] for cell in row}


def compiled(body, folder):
    """What an engine says of a document with this body."""
    engine = shutil.which("pdflatex")
    if engine is None:
        pytest.skip("needs pdflatex")
    lines = [
        r"\documentclass{article}",
        r"\usepackage{booktabs,graphicx}",
        r"\begin{document}",
        *body,
        r"\end{document}",
    ]
    (folder / "document.tex").write_text("\n".join(lines))
    command = [engine, "-interaction=nonstopmode", "-halt-on-error", "document.tex"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")


def test_all_tables_fit_the_page_as_the_docs_have_them(tmp_path):
    page = (ROOT / "docs/how-a-table-is-made.md").read_text()
    line = re.search(r"`([^`]*\\input{table5.tex}[^`]*)`", page)
    assert line is not None
    body = [line[1].replace("table5.tex", str(table)) + r"\clearpage" for table in TABLES]
    done = compiled(body, tmp_path)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout


def test_a_narrow_table_keeps_its_size(tmp_path):
    body = [f"\\setbox0\\hbox{{{FITTED}\n\\rule{{{width}pt}}{{1pt}}}}}}\\typeout{{\\the\\wd0}}" for width in (50, 5000)]
    done = compiled(body, tmp_path)
    assert done.returncode == 0, done.stdout[-2000:]
    assert [float(width) for width in re.findall(r"^([\d.]+)pt$", done.stdout, re.MULTILINE)] == pytest.approx(
        [50, 345], rel=1e-3
    )


def test_no_word_is_a_command(tmp_path):
    rows = [rf"{tex(piece)} & {tex(piece * 2)} \\" for piece in PIECES if tex(piece).isascii()]
    done = compiled([r"\begin{tabular}{lr}", *rows, r"\end{tabular}"], tmp_path)
    assert done.returncode == 0, done.stdout[-2000:]
    assert not re.search(r"(?<!\\)[%#_^~]", "".join(map(tex, PIECES)))

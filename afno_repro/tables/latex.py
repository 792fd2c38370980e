"""Tables as LaTeX for a paper of one's own: `\\input{table2.tex}` with the packages booktabs and graphicx."""

import re

from afno_repro.escape import plain
from afno_repro.tables.grid import grid
from afno_repro.tables.table import Table

MARKS = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--"}
MARKS |= {mark: f"\\{mark}" for mark in "&%$#_{}"} | {mark: f"{{{mark}}}" for mark in "[]"}
FITTED = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"  # a narrow one keeps its size


def tex(text: str) -> str:
    """Words in which nothing is a command of TeX."""
    return re.sub("|".join(map(re.escape, MARKS)), lambda found: MARKS[found[0]], plain(text))


def table_tex(table: Table) -> str:
    """The table's printed columns as a tabular; rows that the paper does not have stand in italics.

    One that is wider than the text shrinks to its width.
    """
    header, lines = grid(table, [column for column in table.columns if column.printed])
    titles = len(table.spec.structure.row_title)
    rows = [
        [tex(part) if row.printed or i >= titles else rf"\emph{{{tex(part)}}}" for i, part in enumerate(line)]
        for row, line in zip(table.spec.rows, lines, strict=True)
    ]
    body = [f"{' & '.join(line)} \\\\" for line in ([tex(name) for name in header], *rows)]
    return "\n".join(
        [
            f"% {plain(table.spec.structure.title)} ({plain(table.at)}); the notes stand in {table.spec.name}.md",
            FITTED,
            rf"\begin{{tabular}}{{{'l' * titles}{'r' * (len(header) - titles)}}}",
            r"\toprule",
            body[0],
            r"\midrule",
            *body[1:],
            r"\bottomrule",
            r"\end{tabular}}",
            "",
        ]
    )

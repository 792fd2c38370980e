"""Text that came from a file, made harmless for where it goes: a terminal, Markdown, a spreadsheet, a drawing."""

import csv
import html
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

FORMULA = "=+-@\t\r\n＝＋－＠"  # what a spreadsheet takes for the begin of one


AFTER_A_SEMICOLON = re.compile(rf";\s*(?=[{re.escape(FORMULA)}])")  # where that separates cells


def visible(text: str) -> str:
    """Lines without control characters, so that no file can steer a terminal or hide what follows."""
    return (
        text if text.isprintable() else "".join(c if c.isprintable() or c == "\n" else " " * c.isspace() for c in text)
    )


def plain(text: str) -> str:
    """One line of words with single spaces between them, without control characters."""
    return visible(re.sub(r"\s+", " ", text))


def md(text: str) -> str:
    """Words inside a line of Markdown or a cell: markup, formulas, links, HTML and separators lose their meaning."""
    marks = r"[\\`*\[\]~|$]|(?<!\w)_|_(?!\w)|:(?=//)|(?<=www)\.|(?<=\w)@(?=\w)"
    return html.escape(re.sub(marks, r"\\\g<0>", plain(text)), quote=False)


def md_code(text: str) -> str:
    """A word shown as code where nothing in it can end that, else as it is."""
    text = plain(text)
    return f"`{text}`" if text and not set(text) & set("`<>&\\|[]") else md(text)


def md_start(markdown: str) -> str:
    """Markdown that begins a block: what begins like a heading, a list or a quotation is none."""
    return re.sub(r"^(\d+(?=[.)](?:\s|$))|(?=[#>+=~-]))", r"\1\\", markdown)


def csv_lines(lines: Iterable[Sequence[Any]]) -> str:
    """CSV in which no text can pass for a spreadsheet's formula; numbers stay as they are."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for line in lines:
        writer.writerow([_csv_cell(value) if isinstance(value, str) else value for value in line])
    return text.getvalue()


def _csv_cell(text: str) -> str:
    shown = AFTER_A_SEMICOLON.sub(r"\g<0>'", plain(text))
    return (
        f"'{shown}"
        if text and (text[0] in FORMULA or shown.lstrip()[:1] in tuple(FORMULA)) and not _numeric(text)
        else shown
    )


def _numeric(text: str) -> bool:
    return re.fullmatch(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?(inf|nan)", text) is not None


def drawable(text: str) -> str:
    """Words in a drawing, which matplotlib would read as formulas between dollar signs."""
    return plain(text).replace("$", r"\$")

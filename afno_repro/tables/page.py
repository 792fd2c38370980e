"""An HTML file from a document: it needs neither network nor scripts and reads well from phones to paper."""

import base64
import html
import re
from collections.abc import Iterator, Sequence
from urllib.parse import quote

from afno_repro.tables.document import Block, Document, Figure, Grid, Listing, Paragraph, Section, Span, Text, spans
from afno_repro.tables.style import STYLE, width_class

LONG = 30  # characters of a cell that takes a line of its own where cells stand in blocks
EMBEDDED = 4_000_000  # bytes of pictures in base64; with the text the file stays below 5 MB
WITHIN = re.compile(r" (?=±)|(?<=±) | (?=\[[-+]?[\d.]+, )|(?<=,) (?=[-+]?[\d.]+\])|(?<=asked >) ")  # a number
TONES = {  # a colour judges, and only what holds or fails has been judged
    "holds": "good",
    "fails": "bad",
    **dict.fromkeys(("undecided", "stated", "assumed", "differs"), "none"),
    **dict.fromkeys(("measured", "missing", "quoted", "out_of_memory", "diverged"), "none"),
}


def html_page(document: Document) -> str:
    """The document as one HTML file; pictures are part of it as far as EMBEDDED allows, those beyond are linked."""
    left = EMBEDDED
    embedded: list[Figure] = []
    for figure in _figures([*document.lead, *document.sections]):
        if (size := 4 * (len(figure.data) // 3 + 1)) <= left:
            left, embedded = left - size, [*embedded, figure]
    title = _words(document.title)
    contents = "\n".join(
        f'<li><a href="#{_words(s.anchor)}">{_words(s.label)}</a></li>' for s in document.sections if s.label
    )
    lead = "\n".join(_block(block, 2, embedded) for block in document.lead)
    body = "\n".join(_block(section, 2, embedded) for section in document.sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{title}</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<h1>{title}</h1>
{lead}
</header>
<nav aria-label="Contents">
<ul>
{contents}
</ul>
</nav>
<main>
{body}
</main>
</body>
</html>
"""


def _figures(blocks: Sequence[Block]) -> Iterator[Figure]:
    for block in blocks:
        if isinstance(block, Figure):
            yield block
        elif isinstance(block, Section):
            yield from _figures(block.blocks)


def _block(block: Block, level: int, embedded: Sequence[Figure]) -> str:
    if isinstance(block, Paragraph):
        return f"<p>{_words(block.text)}</p>"
    if isinstance(block, Listing):
        return "<ul>\n" + "\n".join(f"<li>{_words(item)}</li>" for item in block.items) + "\n</ul>"
    if isinstance(block, Grid):
        return _table(block)
    if isinstance(block, Figure):
        return _figure(block, block in embedded)
    inside = "\n".join(_block(each, level + 1, embedded) for each in block.blocks)
    if block.folded:
        return f"<details>\n<summary>{_words(block.title)}</summary>\n{inside}\n</details>"
    anchor = f' id="{_words(block.anchor)}"' if block.anchor else ""
    return f"<section{anchor}>\n<h{level}>{_words(block.title)}</h{level}>\n{inside}\n</section>"


def _words(text: Text) -> str:
    return "".join(_span(span) for span in spans(text))


def _span(span: Span) -> str:
    words = html.escape(WITHIN.sub("\xa0", span.text)).replace("\xa0", "&nbsp;")
    if span.kind in ("code", "em", "strong"):
        words = f"<{span.kind}>{words}</{span.kind}>"
    elif span.kind in TONES:
        words = f'<span class="tone {TONES[span.kind]}">{words}</span>'
    return f'<a href="{quote(span.link, safe="#/._-")}">{words}</a>' if span.link else words


def _figure(figure: Figure, embedded: bool) -> str:
    caption = _words(figure.caption)
    shown = f"<p>{_words(('Too large to stand here: ', Span(figure.link, link=figure.link)))}</p>"
    if embedded:
        shown = f'<img alt="{caption}" src="data:image/png;base64,{base64.b64encode(figure.data).decode()}">'
    return f"<figure>\n{shown}\n<figcaption>{caption}</figcaption>\n</figure>"


def _table(grid: Grid) -> str:
    """A table as wide as the window; where that is too narrow, a block for each line, with a name at each cell."""
    names = [f"{head.title}: {part}" if part else head.title for head in grid.heads for part in head.parts or ("",)]
    texts = [["".join(span.text for span in spans(cell)) for cell in line] for line in grid.lines]
    classes = [
        " ".join(filter(None, ("n" * head.number, "g" * bool(head.parts and i == 0))))
        for head in grid.heads
        for i in range(len(head.parts) or 1)
    ]
    for i in range(len(classes)):
        if any(len(line[i]) > LONG for line in texts):
            classes[i] = f"{classes[i]} w".strip()
    lines = []
    for line in grid.lines:
        cells = []
        for i, (cell, name) in enumerate(zip(line, classes, strict=True)):
            tag, scope = ("th", ' scope="row"') if i < grid.titles else ("td", "")
            cells.append(f'<{tag}{scope} data-name="{_plain(names[i])}"{_class(name)}>{_words(cell)}</{tag}>')
        lines.append(f"<tr>{''.join(cells)}</tr>")
    body = "\n".join(lines)
    return f"""<div class="table">
<table class="{width_class([names, *texts])}">
<caption>{_words(grid.caption)}</caption>
<thead>
{_heads(grid, classes)}
</thead>
<tbody>
{body}
</tbody>
</table>
</div>"""


def _plain(text: str) -> str:
    """A text as an attribute's value."""
    return html.escape("".join(span.text for span in spans(text)))


def _heads(grid: Grid, classes: Sequence[str]) -> str:
    """One line of headers, or two where some columns stand together below one title."""
    above, below, at = [], [], 0
    deep = any(head.parts for head in grid.heads)
    for head in grid.heads:
        if head.parts:
            above.append(f'<th scope="colgroup" colspan="{len(head.parts)}" class="g">{_words(head.title)}</th>')
            below += [
                f'<th scope="col"{_class(name)}>{_words(part)}</th>'
                for part, name in zip(head.parts, classes[at:], strict=False)
            ]
        else:
            above.append(
                f'<th scope="col"{" rowspan=" + chr(34) + "2" + chr(34) if deep else ""}'
                f"{_class(classes[at])}>{_words(head.title)}</th>"
            )
        at += len(head.parts) or 1
    return "\n".join(f"<tr>{''.join(line)}</tr>" for line in (above, below) if line)


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""

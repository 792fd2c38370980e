"""An HTML file from a document: it needs neither network nor scripts and reads well from phones to paper."""

import base64
import html
from collections.abc import Iterator, Sequence
from urllib.parse import quote

from afno_repro.tables.document import Block, Document, Figure, Grid, Listing, Paragraph, Section, Span, Text, spans

EMBEDDED = 4_000_000  # bytes of pictures in base64; with the text the file stays below 5 MB
TONES = {
    **dict.fromkeys(("stated", "holds", "measured"), "good"),
    **dict.fromkeys(("assumed", "undecided"), "open"),
    **dict.fromkeys(("differs", "fails", "out_of_memory", "diverged"), "bad"),
    **dict.fromkeys(("missing", "quoted"), "none"),
}
STYLE = """
:root {
  color-scheme: light dark;
  --page: #ffffff; --card: #f6f8fa; --text: #1c2128; --soft: #57606a; --line: #d4dae1; \
--link: #0a58ca; --shade: rgba(20, 30, 40, .13);
  --good: #0b5a2b; --good-page: #d9f3e1; --open: #684700; --open-page: #fdefc8; \
--bad: #8d1a12; --bad-page: #fde1df; --none: #454e59; --none-page: #e6eaef;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #11151b; --card: #1a2028; --text: #e3e8ee; --soft: #a3aebb; --line: #333d49; \
--link: #84b8ff; --shade: rgba(0, 0, 0, .65);
    --good: #86e0ab; --good-page: #12351f; --open: #f0cd6c; --open-page: #3a2d08; \
--bad: #ffb0a8; --bad-page: #481a18; --none: #bac4cf; --none-page: #2b333d;
  }
}
* { box-sizing: border-box; }
html { scroll-padding-top: 1rem; -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 1.25rem clamp(1rem, 3vw, 2.5rem) 4rem; max-width: 90rem;
  background: var(--page); color: var(--text); \
font: 1rem/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
h1 { font-size: clamp(1.5rem, 5vw, 2.1rem); line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.35rem; line-height: 1.25; margin: 0 0 .75rem; }
h3 { font-size: 1.05rem; margin: 1.5rem 0 .5rem; }
p, li { max-width: 75ch; overflow-wrap: anywhere; }
p, ul { margin: .6rem 0; }
ul { padding-left: 1.25rem; }
li { margin: .25rem 0; }
a { color: var(--link); text-underline-offset: .15em; }
a:focus-visible, summary:focus-visible, .scroll:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
code { font: .875em/1.4 ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace; }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .4rem; margin: 1rem 0; padding: 0; }
nav li { margin: 0; }
nav a { display: block; padding: .3rem .7rem; border: 1px solid var(--line); border-radius: 999px; \
background: var(--card); text-decoration: none; }
nav a:hover { border-color: var(--link); }
main > section { border-top: 1px solid var(--line); margin-top: 2.25rem; padding-top: 1.75rem; }
.scroll {
  overflow-x: auto; max-width: 100%; margin: 1rem 0; border: 1px solid var(--line); border-radius: .5rem;
  background: linear-gradient(90deg, var(--page) 35%, transparent) local 0 0 / 3rem 100% no-repeat,
    linear-gradient(270deg, var(--page) 35%, transparent) local 100% 0 / 3rem 100% no-repeat,
    linear-gradient(90deg, var(--shade), transparent) scroll 0 0 / .9rem 100% no-repeat,
    linear-gradient(270deg, var(--shade), transparent) scroll 100% 0 / .9rem 100% no-repeat;
}
table { border-collapse: separate; border-spacing: 0; width: 100%; font-size: .875rem; line-height: 1.4; }
caption { text-align: left; color: var(--soft); background: var(--card); border-bottom: 1px solid var(--line); }
caption span { position: sticky; left: 0; display: inline-block; \
max-width: min(75ch, 100vw - 2.2rem); padding: .5rem .6rem; }
th, td { padding: .4rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
tbody th { font-weight: 500; }
thead th { background: var(--card); color: var(--soft); vertical-align: bottom; white-space: nowrap; }
tbody tr:last-child > * { border-bottom: 0; }
tbody tr:hover > * { background: var(--card); }
.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.g { border-left: 1px solid var(--line); }
thead th[colspan] { text-align: center; }
td.w { min-width: 13rem; }
tbody th { min-width: 6.5rem; }
th.w { min-width: 10rem; }
table code { font-size: .95em; }
.stays { position: sticky; left: 0; z-index: 1; box-shadow: 1px 0 0 var(--line); }
tbody .stays { background: var(--page); }
.tone { display: inline-block; padding: 0 .5em; border-radius: 999px; font-size: .92em; \
font-weight: 600; white-space: nowrap; }
.good { color: var(--good); background: var(--good-page); }
.open { color: var(--open); background: var(--open-page); }
.bad { color: var(--bad); background: var(--bad-page); }
.none { color: var(--none); background: var(--none-page); }
details { margin: .75rem 0; border: 1px solid var(--line); border-radius: .5rem; padding: 0 .9rem; }
summary { cursor: pointer; padding: .55rem 0; font-weight: 600; }
figure { margin: 1rem 0; }
figure img { display: block; max-width: 100%; height: auto; padding: .5rem; \
background: #ffffff; border: 1px solid var(--line); border-radius: .5rem; }
figcaption { color: var(--soft); font-size: .9rem; margin-top: .35rem; }
@media (min-width: 70rem) {
  body { display: grid; grid-template: auto 1fr / 9rem minmax(0, 1fr); column-gap: 2rem; }
  header { grid-column: 2; }
  nav { grid-row: 1 / 3; grid-column: 1; }
  nav ul { position: sticky; top: 1.25rem; flex-direction: column; gap: .1rem; margin-top: .75rem; }
  nav a { border-color: transparent; background: none; border-radius: .4rem; }
  nav a:hover { background: var(--card); border-color: transparent; }
}
@media print {
  :root { color-scheme: light; }
  body { display: block; max-width: none; padding: 0; font-size: 9pt; }
  nav { display: none; }
  .scroll { overflow: visible; border: 0; background: none; }
  table { font-size: 7.5pt; }
  th, td { padding: .15rem .3rem; white-space: normal !important; }
  tr, figure { break-inside: avoid; }
  h2, h3, caption { break-after: avoid; }
  .tone { border: 1px solid currentcolor; }
  details::details-content { content-visibility: visible; height: auto; }
}
"""


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
    words = html.escape(span.text)
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
    """A table in a container of its own that scrolls; the title that tells its lines apart best stays in sight."""
    names = [[spans(cell) for cell in line] for line in grid.lines]
    stays = max(range(grid.titles), key=lambda i: len({line[i] for line in names}))
    deep = any(head.parts for head in grid.heads)
    classes = [
        " ".join(filter(None, ("n" * head.number, "g" * (deep and i == 0))))
        for head in grid.heads
        for i in range(len(head.parts) or 1)
    ]
    classes[stays] = f"{classes[stays]} stays".strip()
    for i in range(len(classes)):
        if any(sum(len(span.text) for span in line[i]) > 30 for line in names):
            classes[i] = f"{classes[i]} w".strip()
    lines = []
    for line in grid.lines:
        cells = []
        for i, (cell, name) in enumerate(zip(line, classes, strict=True)):
            tag, scope = ("th", ' scope="row"') if i < grid.titles else ("td", "")
            cells.append(f"<{tag}{scope}{_class(name)}>{_words(cell)}</{tag}>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    body = "\n".join(lines)
    caption = _words(grid.caption)
    return f"""<div class="scroll" role="region" aria-label="{caption}" tabindex="0">
<table>
<caption><span>{caption}</span></caption>
<thead>
{_heads(grid, classes)}
</thead>
<tbody>
{body}
</tbody>
</table>
</div>"""


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

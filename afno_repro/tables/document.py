"""A document's parts, and its Markdown: paragraphs, lists, tables, figures in sections, the same in every form."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from afno_repro.escape import md, md_code, md_start, plain


@dataclass(frozen=True)
class Span:
    """Words of one kind: code, em, strong, or one of TONES; or a link to an anchor or to a file beside the document."""

    text: str
    kind: str = ""
    link: str = ""


Text = str | Span | tuple[str | Span, ...]


@dataclass(frozen=True)
class Paragraph:
    """Sentences."""

    text: Text


@dataclass(frozen=True)
class Listing:
    """Items without an order."""

    items: Sequence[Text]


@dataclass(frozen=True)
class Head:
    """A column's title, or the title over several columns that `parts` names."""

    title: str
    parts: tuple[str, ...] = ()
    number: bool = False


@dataclass(frozen=True)
class Grid:
    """A table; the first `titles` cells of a line name it."""

    caption: str
    heads: Sequence[Head]
    lines: Sequence[Sequence[Text]]
    titles: int = 1


@dataclass(frozen=True)
class Figure:
    """A picture: PNG data, and the link to its file; the caption says what is to be seen, for it is read aloud, too."""

    caption: str
    link: str
    data: bytes


@dataclass(frozen=True)
class Section:
    """A part with a title; one with a label stands in the table of contents, a folded one opens when asked."""

    title: str
    blocks: Sequence["Block"]
    label: str = ""
    anchor: str = ""
    folded: bool = False


Block = Paragraph | Listing | Grid | Figure | Section


@dataclass(frozen=True)
class Document:
    """A title, what stands below it, and sections."""

    title: str
    lead: Sequence[Block]
    sections: Sequence[Section]


def spans(text: Text) -> tuple[Span, ...]:
    """A text's spans, without control characters and with plain spaces: the same words in every form."""
    parts = text if isinstance(text, tuple) else (text,)
    found = [part if isinstance(part, Span) else Span(part) for part in parts]
    return tuple(Span(plain(span.text), span.kind, span.link) for span in found)


def markdown(document: Document) -> str:
    """The document as Markdown; pictures are linked, folded sections are sections."""
    contents = [f"- [{_words(section.label)}](#{section.anchor})" for section in document.sections if section.label]
    parts = [
        f"# {_words(document.title)}",
        *_blocks(document.lead, 2),
        *(["\n".join(contents)] if contents else []),
        *_blocks(document.sections, 2),
    ]
    return "\n\n".join(parts) + "\n"


def _blocks(blocks: Sequence[Block], level: int) -> Iterator[str]:
    for block in blocks:
        if isinstance(block, Paragraph):
            yield _start(block.text)
        elif isinstance(block, Listing):
            yield "\n".join(f"- {_start(item)}" for item in block.items)
        elif isinstance(block, Grid):
            yield _start(block.caption)
            yield grid_markdown(block)
        elif isinstance(block, Figure):
            yield f"![{_words(block.caption)}]({quote(block.link)})"
        else:
            anchor = f'<a id="{block.anchor}"></a>\n\n' if block.anchor else ""
            yield f"{anchor}{'#' * level} {_words(block.title)}"
            yield from _blocks(block.blocks, level + 1)


def grid_markdown(grid: Grid) -> str:
    """A Markdown table has one line of headers: a title over several columns stands before the first of their names."""
    titles, rule = [], []
    for head in grid.heads:
        names = [f"{head.title}: {part}" if i == 0 else part for i, part in enumerate(head.parts)] or [head.title]
        titles += [_words(name) for name in names]
        rule += ["---:" if head.number else "---"] * len(names)
    lines = [titles, rule, *([_words(cell) for cell in line] for line in grid.lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _start(text: Text) -> str:
    return md_start(_words(text))


def _words(text: Text) -> str:
    return "".join(_span(span) for span in spans(text))


def _span(span: Span) -> str:
    if span.kind == "code":
        words = md_code(span.text)
    else:
        words = md(span.text)
        mark = {"em": "*", "strong": "**"}.get(span.kind, "") if words.strip() == words else ""
        words = f"{mark}{words}{mark}" if words else ""
    return f"[{words}]({quote(span.link, safe='#/._-')})" if span.link else words

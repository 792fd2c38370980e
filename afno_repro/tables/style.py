"""How the page looks, and which of its tables stand as blocks in which widths."""

from collections.abc import Sequence

LETTER, PADDING = 0.62, 0.9  # rem: of a letter in a wide font at a table's size, and beside each cell
WIDTHS = (21, 32, 44, 58, 72, 999)  # rem: of tables, by what they need; beyond the last but one they are always blocks

BASE = """
:root {
  color-scheme: light dark;
  --page: #ffffff; --card: #f6f8fa; --text: #1c2128; --soft: #57606a; --line: #d4dae1; --link: #0a58ca;
  --good: #0b5a2b; --good-page: #d9f3e1; --bad: #8d1a12; --bad-page: #fde1df; --none: #454e59; --none-page: #e6eaef;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #11151b; --card: #1a2028; --text: #e3e8ee; --soft: #a3aebb; --line: #333d49; --link: #84b8ff;
    --good: #86e0ab; --good-page: #12351f; --bad: #ffb0a8; --bad-page: #481a18; --none: #bac4cf; --none-page: #2b333d;
  }
}
* { box-sizing: border-box; }
html { scroll-padding-top: 1rem; -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 1.25rem clamp(1rem, 3vw, 2.5rem) 4rem; max-width: 90rem;
  background: var(--page); color: var(--text);
  font: 1rem/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
h1 { font-size: clamp(1.5rem, 5vw, 2.1rem); line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.35rem; line-height: 1.25; margin: 0 0 .75rem; }
h3 { font-size: 1.05rem; margin: 1.5rem 0 .5rem; }
h1, h2, h3 { overflow-wrap: anywhere; }
p, li { max-width: 75ch; overflow-wrap: anywhere; }
p, ul { margin: .6rem 0; }
ul { padding-left: 1.25rem; }
li { margin: .25rem 0; }
a { color: var(--link); text-underline-offset: .15em; }
a:focus-visible, summary:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
code { font: .875em/1.4 ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace; }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .4rem; margin: 1rem 0; padding: 0; }
nav li { margin: 0; }
nav a {
  display: block; padding: .3rem .7rem; border: 1px solid var(--line); border-radius: 999px;
  background: var(--card); text-decoration: none;
}
nav a:hover { border-color: var(--link); }
main > section { border-top: 1px solid var(--line); margin-top: 2.25rem; padding-top: 1.75rem; }
.table { container-type: inline-size; margin: 1rem 0; }
table {
  border: 1px solid var(--line); border-radius: .5rem; border-spacing: 0; width: 100%;
  font-size: .875rem; line-height: 1.4;
}
caption { text-align: left; color: var(--soft); padding: .5rem 0; }
th, td { padding: .4rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
tbody th { font-weight: 500; }
thead th { background: var(--card); color: var(--soft); vertical-align: bottom; }
tbody tr:last-child > * { border-bottom: 0; }
tbody tr:hover > * { background: var(--card); }
.n { text-align: right; font-variant-numeric: tabular-nums; }
.g { border-left: 1px solid var(--line); }
thead th[colspan] { text-align: center; }
table code { font-size: .95em; }
.tone { display: inline-block; padding: 0 .5em; border-radius: 999px; font-size: .92em; font-weight: 600; }
.good { color: var(--good); background: var(--good-page); }
.bad { color: var(--bad); background: var(--bad-page); }
.none { color: var(--none); background: var(--none-page); }
details { margin: .75rem 0; border: 1px solid var(--line); border-radius: .5rem; padding: 0 .9rem; }
summary { cursor: pointer; padding: .55rem 0; font-weight: 600; }
figure { margin: 1rem 0; }
figure img {
  display: block; max-width: 100%; height: auto; padding: .5rem;
  background: #ffffff; border: 1px solid var(--line); border-radius: .5rem;
}
figcaption { color: var(--soft); font-size: .9rem; margin-top: .35rem; max-width: 75ch; }
@media (min-width: 96rem) {
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
  table { font-size: 7.5pt; }
  th, td { padding: .15rem .3rem; }
  tr, figure { break-inside: avoid; }
  h2, h3, caption { break-after: avoid; }
  .tone { border: 1px solid currentcolor; }
  details::details-content { content-visibility: visible; height: auto; }
}
"""
BLOCKS = """
@container (max-width: {limit}rem) {{
  .{name}, .{name} caption, .{name} tbody {{ display: block; }}
  .{name} caption {{ padding: .6rem; border-bottom: 1px solid var(--line); }}
  .{name} thead {{ display: none; }}
  .{name} tbody th {{ font-weight: 600; }}
  .{name} tr {{
    display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 9rem), 1fr));
    gap: .5rem; padding: .6rem; border-bottom: 1px solid var(--line);
  }}
  .{name} tbody tr > * {{
    min-width: 0; padding: 0; border: 0; text-align: left; background: none; overflow-wrap: anywhere;
  }}
  .{name} tbody tr > *::before {{ content: attr(data-name); display: block; color: var(--soft); font-weight: 400; }}
  .{name} tbody tr > .w {{ grid-column: 1 / -1; }}
}}
"""


def width_class(lines: Sequence[Sequence[str]]) -> str:
    """The class of a table with these words, its heads among them: the least of WIDTHS in which none is broken."""
    columns = [[word for cell in column for word in cell.split(" ")] for column in zip(*lines, strict=True)]
    needed = sum(max(map(len, words)) * LETTER + PADDING for words in columns)
    return f"w{next(width for width in WIDTHS if needed <= width or width == WIDTHS[-1])}"


STYLE = BASE + "".join(BLOCKS.format(name=f"w{width}", limit=width - 0.01) for width in WIDTHS)

"""The report on made-up tables: the same content in Markdown and HTML, whole, escaped and self-contained."""

import html
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from afno_repro.tables.captions import captions
from afno_repro.tables.claims import claim_verdicts
from afno_repro.tables.costs import costs_markdown
from afno_repro.tables.document import Document, Figure, Grid, Head, Listing, Paragraph, Section, Span, markdown
from afno_repro.tables.page import EMBEDDED, STYLE, html_page
from afno_repro.tables.report import readme, report_files
from afno_repro.tables.results import table_csv, table_markdown
from tests.specs import SMALL
from tests.tables.test_table import Made

VOID = {"meta", "img", "br", "link"}
HOSTILE = "<script>alert(1)</script> \x1b[31m`x` [a](javascript:x) | \"q\" 'a' & **b** http://x.y/z"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


class Page(HTMLParser):
    """An HTML file read strictly: `tables` are lists of lines of cells, `tags` all tags with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.tables, self.items, self.cell = [], [], [], [], None
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td", "li"):
            self.cell = ""

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag in ("th", "td"):
            self.tables[-1][-1].append(self.cell)
        elif tag == "li":
            self.items.append(self.cell)

    def handle_data(self, data):
        if self.cell is not None:
            self.cell += data.replace("\xa0", " ")


def plain(text):
    """Markdown's words without its marks."""
    text = re.sub(r"(?<!\\)\[((?:\\.|[^\]\\])*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"(?<!\\)[`*]", "", text)
    return html.unescape(re.sub(r"\\(.)", r"\1", text)).strip()


def markdown_tables(text):
    found, before = [], ""
    for line in text.splitlines():
        if line.startswith("| "):
            if not before.startswith("| "):
                found.append([])
            found[-1].append([plain(cell) for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        before = line
    return [[table[0], *table[2:]] for table in found]


def words(cells):
    return sorted(re.findall(r"\w+", " ".join(cell for line in cells for cell in line)))


def made(tmp_path, text=SMALL):
    """One row with all its runs, one with none, one that no paper has."""
    text = text.replace("tiny: {seeds: [0]}", "tiny: {seeds: [0, 1]}")
    table = Made(tmp_path, text).put("afno", "cost", gflops=0.6)
    for seed in (0, 1):
        table.put("afno", "pretrain", seed, psnr=20.0 + seed)
    return table.put("fill_mean", "pretrain", psnr=15.0)


def both(tmp_path, table, figures=None):
    texts = report_files(tmp_path / "results", [table], figures or {})
    assert [path.name for path in texts] == ["report.md", "report.html"]
    return tuple(texts.values())


def test_the_page_is_well_formed_and_needs_neither_network_nor_scripts(tmp_path):
    _, text = both(tmp_path, made(tmp_path).table())
    page = Page(text)
    names = [tag for tag, _ in page.tags]
    assert not {"script", "link", "iframe", "object"} & set(names)
    assert "url(" not in text
    assert not [
        value
        for _, attrs in page.tags
        for key, value in attrs.items()
        if key.startswith("on") or re.match(r"(https?:)?//", value or "")
    ]
    targets = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    assert {attrs["href"][1:] for _, attrs in page.tags if attrs.get("href", "").startswith("#")} <= targets
    assert names.count("table") == names.count("caption") > 0
    assert all("scope" in attrs for tag, attrs in page.tags if tag == "th")


def test_both_forms_have_the_same_tables_and_lists(tmp_path):
    text, page = both(tmp_path, made(tmp_path).table())
    in_markdown, in_html = markdown_tables(text), Page(page).tables
    assert len(in_markdown) == len(in_html) > 5
    for ours, theirs in zip(in_markdown, in_html, strict=True):
        assert words(ours) == words(theirs)
        lines = [[cell.strip() for cell in line] for line in theirs]
        assert ours[1:] == lines[len(lines) - len(ours) + 1 :]
    assert [plain(line[2:]) for line in text.splitlines() if line.startswith("- ")] == [
        item.strip() for item in Page(page).items
    ]


def test_every_row_and_claim_stands_in_both(tmp_path):
    table = made(tmp_path).table()
    for text in both(tmp_path, table):
        for row in table.spec.rows:
            assert row.title[-1] in text
            assert f"small.yaml:{table.spec.row_tree(row.key).place.split(':')[-2]}" in text
        assert "AFNO beats GFN" in text
        assert "pretrain.train.batch_size" in text


def test_the_table_has_here_paper_and_difference_where_they_compare_as_every_file_has(tmp_path):
    table = made(tmp_path).table()
    text, _ = both(tmp_path, table)
    mirror = next(table for table in markdown_tables(text) if table[0][:2] == ["Backbone", "Mixer"])
    assert mirror[0] == ["Backbone", "Mixer", "GFLOPs: here", "paper", "difference", "PSNR (dB)"]
    assert mirror[1:] == [
        ["ViT", "GFN", "missing", "0.5000", "–", "missing"],
        ["ViT", "AFNO", "0.6000", "0.6000", "+0% stated", "20.50 ± 0.71"],
        ["none", "mean fill", "–", "–", "–", "15.00"],
    ]
    page = table_markdown(table, claim_verdicts(table))
    assert markdown_tables(page)[0][0] == ["Backbone", "Mixer", "GFLOPs", "paper", "PSNR (dB)"]
    header = table_csv(table).splitlines()[0].split(",")
    assert header[3:7] == ["gflops", "gflops_spread", "gflops_paper", "gflops_verdict"]
    assert markdown_tables(costs_markdown([table]))[0][0][3:6] == ["here", "paper", "difference"]


def test_the_summary_counts_cells_costs_and_claims(tmp_path):
    text, _ = both(tmp_path, made(tmp_path).table())
    for line in ("3 measured", "2 missing", "1 stated", "0 differs", "0 holds", "0 fails", "1 undecided"):
        assert f"- **{line.split()[0]}** {line.split()[1]}: " in text
    assert "1 more are undecided because numbers are missing" in text


def test_missing_cells_name_the_command_that_fills_them_or_the_reason(tmp_path):
    for text in both(tmp_path, made(tmp_path).table()):
        assert "afno run small --scale tiny --row gfn" in text
        assert "afno run small --scale tiny --row afno" not in text
    half = Made(tmp_path / "half", SMALL.replace("tiny: {seeds: [0]}", "tiny: {seeds: [0, 1]}")).put(
        "afno", "pretrain", 1, psnr=20.0
    )
    line = ["Small", "afno", "PSNR", "1 of 2 seeds", "afno run small --scale tiny --row afno"]
    assert line in markdown_tables(both(tmp_path, half.table())[0])[-3]
    none = Made(
        tmp_path / "none",
        SMALL.replace("tiny: {seeds: [0]}", "tiny: {seeds: [0], unavailable: {pretrain: there is no open set}}"),
    ).table()
    for text in both(tmp_path, none):
        assert "there is no open set" in text
    failed = Made(tmp_path / "failed").put("afno", "pretrain", outcome="diverged")
    for text in both(tmp_path, failed.table()):
        assert f"the run ended so: {failed.plan.needs['afno', 'pretrain', 0].id}" in text


@pytest.mark.parametrize("field", ["mean fill", "A small table", "Nothing is said.", "AFNO beats GFN", "dB"])
def test_hostile_text_from_a_spec_is_text_in_both_forms(tmp_path, field):
    escaped = HOSTILE.replace("\\", "\\\\").replace('"', '\\"').replace("\x1b", "\\e")
    text = SMALL.replace(field, f'"{escaped}"', 1) + f'remarks: ["# {escaped}", "{escaped}"]\n'
    table = made(tmp_path, text).table()
    markup, page = both(tmp_path, table)
    for each in (markup, page, readme({"tiny": [table]})):
        assert "<script" not in each
        assert "\x1b" not in each
    assert not re.search(r"(?<!\\)\[a\]\(", markup)
    assert "\n- \\# " in markup
    cleaned = HOSTILE.replace("\x1b", "")
    assert html.escape(cleaned) in page
    assert any(cleaned in item for item in Page(page).items)
    assert [words(table) for table in markdown_tables(markup)] == [words(table) for table in Page(page).tables]


def test_a_folded_spec_text_keeps_its_words_apart():
    document = Document("one\ntwo", [Paragraph("three\n\tfour\x00")], [Section("s", [Listing(["5.\u202e six"])])])
    assert "# one two\n\nthree four" in markdown(document)
    assert "<p>three four</p>" in html_page(document)
    assert "- 5\\. six" in markdown(document)


def test_provenance_counts_device_hours_once_and_says_mixtures(tmp_path):
    table = made(tmp_path).table()
    table.records[0].provenance["devices"] = 1797  # type: ignore[index]
    for text in both(tmp_path, table):
        assert f"{len(table.records)} runs, 1 device-hours in all" in text  # 1797 devices and 3 other runs, 2 s each
        assert "The records mix devices." in text
    twice = report_files(tmp_path, [table, table], {})
    assert all(f"{len(table.records)} runs, 1 device-hours in all" in text for text in twice.values())


def test_two_trainings_of_one_config_are_two_runs_unless_they_are_the_same(tmp_path):
    table = made(tmp_path).table()
    elsewhere = {
        need: replace(each, provenance={**each.provenance, "device": "another machine"})
        for need, each in table.found.items()
    }
    again = replace(table, spec=replace(table.spec, name="again"), found=elsewhere)
    for text in report_files(tmp_path, [table, again], {}).values():
        assert f"{2 * len(table.records)} runs, " in text


def test_table_and_report_say_what_networks_were_trained_on(tmp_path):
    table = made(tmp_path).table()
    trained = [record for record in table.records if record.config.kind == "pretrain"]
    for record in trained:
        record.provenance["images"] = [24, 8]  # type: ignore[index]
    assert "- Trained on photos: 24 images, and 8 to validate." in table_markdown(table, claim_verdicts(table))
    assert f"| Trained on | photos: 24 images, and 8 to validate | {len(trained)} |" in both(tmp_path, table)[0]


def test_what_was_not_run_at_all_is_named_with_its_command(tmp_path):
    table = made(tmp_path).table()
    for text in report_files(tmp_path, [table], {}, unrun=["table3"]).values():
        assert "Tables and figures of which nothing was run" in text
        assert "afno run table3 --scale tiny" in text


def test_a_table_of_which_the_paper_prints_nothing_is_not_as_the_paper_has_it(tmp_path):
    own = made(tmp_path, re.sub(r"    paper: \{.*\n", "", SMALL)).table()
    for text in report_files(tmp_path, [own], {}).values():
        assert "Small, tiny scale; the paper prints none of these numbers" in text
        assert "as the paper has it" not in text


def test_figures_are_embedded_in_the_page_and_linked_in_markdown(tmp_path):
    picture, other = tmp_path / "results" / "small a.png", tmp_path / "results" / "fig5.png"
    picture.parent.mkdir(exist_ok=True)
    for path in (picture, other):
        path.write_bytes(PNG)
    text, page = both(tmp_path, made(tmp_path).table(), {"small": [picture], "fig5": [other]})
    assert "(small%20a.png)" in text
    assert "## Figure 5\n\n![Figure 5](fig5.png)" in text
    images = [attrs for tag, attrs in Page(page).tags if tag == "img"]
    assert len(images) == 2
    assert all(image["src"].startswith("data:image/png;base64,iVBOR") and image["alt"] for image in images)


def test_a_figure_says_what_is_to_be_seen_and_of_which_networks(tmp_path):
    figures = (
        "figures: [{name: training, stage: pretrain, suffix: a}, {name: families, x: gflops, y: psnr, suffix: f}]\n"
    )
    table = made(tmp_path, SMALL.replace("claims:\n", f"{figures}claims:\n")).table()
    training, families = captions(table).values()
    assert training.endswith(
        "networks of the tiny scale. PSNR (dB): AFNO 20.50 ± 0.71. ± is the standard deviation over 2 seeds."
    )
    assert "Highest of each family: ViT, AFNO 20.50 ± 0.71 at 0.6000." in families
    assert "PSNR (dB) of networks of the tiny scale against GFLOPs" in families
    picture = tmp_path / "results" / "small_f.png"
    picture.parent.mkdir(exist_ok=True)
    picture.write_bytes(PNG)
    text, page = both(tmp_path, table, {"small": [picture]})
    assert [attrs["alt"].replace("\xa0", " ") for tag, attrs in Page(page).tags if tag == "img"] == [families]
    assert "20.50 ± 0.71 at 0.6000" in text


def test_the_caveat_comes_first_and_then_what_holds_and_fails_with_n(tmp_path):
    table = made(tmp_path, SMALL.replace("tiny: {seeds: [0]}", "tiny: {seeds: [0, 1, 2]}"))
    for seed in range(3):
        table.put("gfn", "pretrain", seed, psnr=18.0 + seed + 0.01 * seed**2).put(
            "afno", "pretrain", seed, psnr=20.0 + seed
        )
    for text in both(tmp_path, table.table()):
        words = " ".join(
            html.unescape(re.sub(r"<[^>]+>|\\", "", text[text.index("AFNO reproduction: tiny scale") :])).split()
        )
        places = [
            words.index(part)
            for part in ("Tiny scale: small models", "The tables and figures", "Holds (1)", "Counted costs")
        ]
        assert places == sorted(places)
        assert re.search(
            r"AFNO beats GFN .*: PSNR \+1\.98 dB \[\+1\.9\d, \+2\.0\d\], asked (>|&gt;) 0, 3 seeds\.", words
        )


def test_what_is_undecided_says_why(tmp_path):
    table = made(tmp_path)
    for seed, mean in enumerate((19.0, 23.0)):
        table.put("gfn", "pretrain", seed, psnr=mean)
    text, _ = both(tmp_path, table.table())
    assert re.search(
        r"asked &gt; 0, 2 seeds: the interval lies across what is asked; this distance would need \d+ seeds", text
    )


def test_only_what_was_judged_has_a_colour(tmp_path):
    _, page = both(tmp_path, made(tmp_path).table())
    tones = re.findall(r'class="tone (\w+)">(\w+)<', page)
    assert {word for tone, word in tones if tone != "none"} == {"holds", "fails"}
    assert {"stated", "differs", "measured", "missing", "undecided"} <= {word for tone, word in tones if tone == "none"}


def test_the_page_stays_below_5_mb(tmp_path):
    pictures = [Figure(f"p{i}", f"p{i}.png", PNG + bytes(1_200_000) + bytes([i])) for i in range(4)]
    text = html_page(Document("t", [], [Section("s", pictures)]))
    assert EMBEDDED / 2 < len(text) < 5_000_000
    assert text.count("<img ") == 2
    assert text.count("Too large to stand here") == 2


def test_the_same_records_give_the_same_bytes(tmp_path):
    first = made(tmp_path)
    assert both(tmp_path, first.table()) == both(tmp_path, first.table())
    assert readme({"tiny": [first.table()]}) == readme({"tiny": [first.table()]})


def test_the_readme_links_reports_and_tables(tmp_path):
    text = readme({"tiny": [made(tmp_path).table()], "paper": []})
    for target in (
        "tiny/report.html",
        "tiny/report.md",
        "tiny/small.md",
        "tiny/cells.csv",
        "paper/report.html",
        "costs.md",
    ):
        assert f"]({target})" in text
    assert "A small table" in text


def test_the_papers_tables_come_first_then_its_figures_and_every_name_begins_with_a_capital(tmp_path):
    table = made(tmp_path).table()
    names = ("own_images", "fig4_blocks", "residuals", "table2", "fig1")
    tables = [replace(table, spec=replace(table.spec, name=name)) for name in names]
    texts = report_files(tmp_path / "results", tables, {}).values()
    for text, entry in zip(texts, (r"^- \[(.+)\]\(#.+\)$", r"^<li><a href=\"#.+\">(.+)</a></li>$"), strict=True):
        found = re.findall(entry, text, re.MULTILINE)
        assert found[:4] == ["Summary", "Table 2", "Figure 1", "Figure 4, blocks"]
        assert found[4:7] == ["Own images", "Residuals", "What is missing"]


@pytest.mark.parametrize(("low", "high"), [("-0.97", "+1.99"), ("0.00", "+1.99"), ("-0.97", "0.00")])
def test_no_number_is_parted_from_its_interval_or_from_what_is_asked(low, high):
    words = f"PSNR -0.40 dB [{low}, {high}], asked > -0.1, 3 seeds: 20.0 ± 1.0, 5"
    page = html_page(Document("A title", [Paragraph(words)], []))
    kept = f"dB&nbsp;[{low},&nbsp;{high}], asked &gt;&nbsp;-0.1, 3 seeds: 20.0&nbsp;±&nbsp;1.0, 5"
    assert f"<p>PSNR -0.40 {kept}</p>" in page


def test_no_tables_still_make_a_report(tmp_path):
    for text in report_files(tmp_path, [], {}).values():
        assert "0 runs" in text


def test_a_table_with_titles_over_columns_names_every_column():
    grid = Grid(
        "c",
        [Head("row"), Head("a", ("x", "y"), number=True), Head("b", number=True)],
        [["r", "1", "2", ("3 ", Span("fails", "fails"))]],
    )
    document = Document("t", [grid], [])
    assert "| row | a: x | y | b |\n| --- | ---: | ---: | ---: |\n| r | 1 | 2 | 3 fails |" in markdown(document)
    assert Page(html_page(document)).tables == [[["row", "a", "b"], ["x", "y"], ["r", "1", "2", "3 fails"]]]


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_text_has_the_contrast_that_wcag_asks_for():
    for part in STYLE.split("@media (prefers-color-scheme: dark)"):
        colours = dict(re.findall(r"--([\w-]+): (#\w{6})", part))
        pairs = [(name, f"{name}-page") for name in ("good", "bad", "none")]
        pairs += [(name, below) for name in ("text", "soft", "link") for below in ("page", "card")]
        for above, below in pairs:
            low, high = sorted((luminance(colours[above]), luminance(colours[below])))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (above, below)


def test_the_report_reads_nothing_but_its_figures(tmp_path, monkeypatch):
    table = made(tmp_path).table()
    monkeypatch.setattr(Path, "read_text", lambda *_: pytest.fail("a file was read"))
    assert both(tmp_path, table)

"""The report as a browser lays it out: no cell of a table beyond the window, on a screen and on a phone."""

import html
import json
import os
import re
import shutil
import subprocess

import pytest

from tests.command import afno
from tests.specs import ROOT, SMALL, write_spec

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next((found for name in NAMES if (found := shutil.which(name))), None)
WIDTHS = (1280, 390)  # pixels
# Frames have the windows' widths, which the browser's own window may not have: it has a least one.
MEASURE = """<!DOCTYPE html><meta charset="utf-8"><title>nothing yet</title><script>
addEventListener("load", () => {
  const found = [...document.querySelectorAll("iframe")].map(frame => {
    const page = frame.contentDocument, view = page.documentElement.clientWidth  // less what scrolls it
    for (const part of page.querySelectorAll("details")) part.open = true
    const right = part => {
      const range = page.createRange()
      range.selectNodeContents(part)
      return Math.max(part.getBoundingClientRect().right, range.getBoundingClientRect().right)
    }
    const cells = [...page.querySelectorAll("th, td, caption, img, figcaption, li, p, h2, h3")]
    const broken = [...page.querySelectorAll("td")].flatMap(cell => {
      const walk = page.createTreeWalker(cell, NodeFilter.SHOW_TEXT), parts = []
      const number = /[-+±\\d.,%]*\\d(\\u00a0±\\u00a0[\\d.]+)?/g
      while (walk.nextNode()) for (const word of walk.currentNode.data.matchAll(number)) {
        const range = page.createRange()
        range.setStart(walk.currentNode, word.index)
        range.setEnd(walk.currentNode, word.index + word[0].length)
        if (!cell.querySelector("code") && range.getClientRects().length > 1) parts.push(word[0])
      }
      return parts
    })
    return {
      width: frame.clientWidth,
      cells: page.querySelectorAll("td").length,
      beyond: cells.filter(cell => right(cell) > view).map(cell => cell.textContent.slice(0, 60)),
      scrolled: [...page.querySelectorAll("*")].filter(e => e.scrollWidth > e.clientWidth && e.clientWidth
        && getComputedStyle(e).overflowX !== "visible").map(e => e.tagName),
      wider: page.documentElement.scrollWidth - view,
      broken,
    }
  })
  document.title = JSON.stringify(found)
})
</script>
"""


@pytest.fixture(scope="module")
def browser():
    if BROWSER is None and os.environ.get("CI"):
        pytest.fail(f"CI has none of {', '.join(NAMES)}")
    if BROWSER is None:
        pytest.skip(f"none of {', '.join(NAMES)} is installed")
    return BROWSER


def measured(browser, report, folder):
    frames = "".join(
        f'<iframe width="{width}" height="900" srcdoc="{html.escape(report)}"></iframe>' for width in WIDTHS
    )
    page = folder / "measure.html"
    page.write_text(MEASURE + frames)
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={folder}"]
    done = subprocess.run(
        [browser, *options, "--virtual-time-budget=20000", "--dump-dom", str(page)], capture_output=True, text=True
    )
    return json.loads(html.unescape(re.search("<title>(.*?)</title>", done.stdout)[1]))


REFERENCE = sorted((ROOT / "results/reference").glob("*/report.html"))


@pytest.mark.parametrize("report", REFERENCE, ids=lambda path: path.parent.name)
def test_no_cell_of_the_reference_lies_beyond_the_window(browser, report, tmp_path):
    assert_fits(measured(browser, report.read_text(), tmp_path))


def test_no_cell_of_a_report_with_long_names_lies_beyond_the_window(browser, tmp_path):
    long = "[ViT-Enormous/16, A mixer with a name of many words and aVeryLongOneWithoutASpaceInItThatNoPhoneHasRoomFor]"
    write_spec(tmp_path, SMALL.replace("[ViT, GFN]", long))
    afno("run", "small", "--scale", "smoke", "--device", "cpu", "--jobs", "1", root=tmp_path)
    assert_fits(measured(browser, (tmp_path / "runs/smoke/report.html").read_text(), tmp_path))


def assert_fits(windows):
    for found, width in zip(windows, WIDTHS, strict=True):
        assert found["cells"] > 10
        assert (found["width"], found["wider"]) == (width, 0)
        assert (found["beyond"], found["scrolled"], found["broken"]) == ([], [], [])

"""What a terminal shows while runs go on: at 80 columns, with many rows, after a failure, after an interrupt."""

import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections import Counter
from dataclasses import replace
from fcntl import ioctl
from io import StringIO

import pytest
from rich.console import Console

from afno_repro.commands import terminal
from afno_repro.commands.live import LiveTable, duration
from afno_repro.commands.terminal import Plain, column_widths, print_grid, say, show_for
from afno_repro.runs.show import Place, Show
from afno_repro.spec.plan import plan_runs
from afno_repro.spec.reader import load_spec
from afno_repro.training.loop import Progress
from tests.specs import SMALL, write_spec

HALF = Progress(step=45, total=100, images_per_s=123.4, metrics={"loss": 0.01234}, note="")
COLOUR = re.compile(rb"\x1b\[[0-9;]*3[0-9]m")


@pytest.fixture
def run(tmp_path):
    return plan_runs(load_spec(write_spec(tmp_path)), "smoke").needs["afno", "pretrain", 0]


def table(width=80, height=24):
    """A live table on a terminal of this size, and what was written to it."""
    written = StringIO()
    return LiveTable(Console(file=written, width=width, height=height, force_terminal=True, no_color=True)), written


def drawn(show):
    """The lines of a moment, none of them too long or too many."""
    console = Console(file=StringIO(), width=show.console.width, record=True)
    console.print(show.draw())
    lines = console.export_text().rstrip("\n").splitlines()
    assert all(len(line) <= show.console.width for line in lines), lines
    assert len(lines) < show.console.height
    return lines


@pytest.mark.fast
def test_a_moment_shows_state_progress_rate_and_the_newest_metric(run):
    show, _ = table()
    seeds = [replace(run, digest=f"d{seed}") for seed in range(3)]
    show.plan(
        [
            Place("c", "afno", "cost", "done"),
            *(Place(each.digest, "afno", "pretrain", "waiting") for each in seeds),
            Place("x", "gfn", "cost", "left_out"),
        ]
    )
    show.started(seeds[0])
    show.finished(seeds[0], "ok", "", 1.5, {"psnr": 20.5})
    show.started(seeds[1])
    show.progressed(seeds[1], replace(HALF, step=1))
    show.progressed(seeds[1], HALF)
    lines = drawn(show)
    assert lines[2].split() == ["afno", "1/1", "1/3", "45%"]
    assert lines[3].split() == ["gfn", "0/1", "left", "out"]
    (going,) = (line for line in lines if line.startswith("afno/pretrain seed 0 "))
    assert ("45%" in going, "123" in going, "loss 0.01234" in going, "0:00" in going) == (True, True, True, True)
    assert lines[-2].startswith("2 of 5 runs done, 1 running, 1 left out, 1 waiting")
    assert lines[-1].endswith("psnr 20.5")


@pytest.mark.parametrize("height", [12, 16, 24])
def test_of_many_rows_those_that_run_come_first_and_the_rest_are_counted(run, height):
    show, _ = table(height=height)
    runs = [replace(run, digest=f"d{i}", row=f"row_{i}") for i in range(18)]
    show.plan(
        [
            Place(each.digest, each.row, stage, "waiting")
            for each in runs
            for stage in ("pretrained_cost", "pretrain", "finetune")
        ]
    )
    for each in runs[:10]:
        show.started(each)
        show.finished(each, "ok", "", 1.0, {})
    show.started(runs[17])
    lines = drawn(show)
    assert lines[2].startswith("row_17") or "row_17" in lines[3]
    shown = sum(line.startswith("row_") and "/pretrain" not in line for line in lines)
    (more,) = (line for line in lines if line.startswith("and "))
    assert more.startswith(f"and {18 - shown} more rows: ")
    assert "10 done" in more or shown > 8


@pytest.mark.parametrize("width", [50, 60, 80, 120])
def test_stages_that_do_not_fit_are_put_together(run, width):
    show, _ = table(width)
    stages = [
        "cost",
        "pretrain",
        *(f"{name}{end}" for name in ("lsun_cats", "ade_cars", "celeba_faces") for end in ("", "_scratch")),
    ]
    runs = {stage: replace(run, digest=stage, row="efficient_self_attention", stage=stage) for stage in stages}
    show.plan([Place(stage, "efficient_self_attention", stage, "waiting") for stage in stages])
    show.started(runs["celeba_faces_scratch"])
    show.progressed(runs["celeba_faces_scratch"], HALF)
    lines = drawn(show)
    assert any("others" in line for line in lines) == (width < 120)
    counts = [
        tuple(map(int, found))
        for line in lines
        if line.startswith("efficient_self_attention ")
        for found in re.findall(r"(\d+)/(\d+)", line)
    ]
    assert sum(total for _, total in counts) == len(stages)


@pytest.mark.parametrize(
    ("outcome", "word"),
    [("out_of_memory", "out of memory"), ("diverged", "diverged"), ("failed", "failed"), ("held", "held")],
)
def test_what_went_wrong_stands_in_the_cell_and_scrolls_by(run, outcome, word):
    show, written = table()
    with show:
        show.plan([Place(run.digest, run.row, run.stage, "waiting")])
        show.started(run)
        show.note("a note with [brackets]")
        show.finished(run, outcome, "for a reason", 2.0, {})
        assert f"0/1 {word}" in " ".join(drawn(show)[2].split())
    assert "a note with [brackets]" in written.getvalue()
    assert f"afno/pretrain seed 0: {word} (for a reason) after 2.0 s" in written.getvalue()
    assert f"0 of 1 runs done, 1 {word}" in written.getvalue()


def test_the_cursor_is_never_hidden_for_long(run):
    show, written = table()
    with show:
        assert written.getvalue().endswith("\x1b[?25h")


@pytest.mark.fast
def test_plain_lines_and_quiet(run, capsys, monkeypatch):
    assert type(show_for(quiet=True)) is Show
    plain = show_for(quiet=False)
    assert isinstance(plain, Plain)
    monkeypatch.setattr(terminal, "PLAIN_EVERY_S", 0.0)
    plain.plan([Place(run.digest, "afno", "pretrain", "waiting"), Place("x", "gfn", "pretrain", "done")])
    plain.started(run)
    plain.progressed(run, replace(HALF, note="a warning"))
    plain.finished(run, "ok", "", 1.0, {"psnr": 20.0, "top1": 1.0})
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "1 of 2 runs done, 1 waiting",
        "afno/pretrain seed 0: started",
        "afno/pretrain seed 0: a warning",
        "afno/pretrain seed 0: step 45/100  123 images/s  loss 0.01234",
        "afno/pretrain seed 0: ok after 1.0 s  psnr 20  top1 1; 0 to go",
    ]


@pytest.mark.fast
def test_durations():
    assert [duration(seconds) for seconds in (0.4, 75, 3723)] == ["0:00", "1:15", "1:02:03"]


@pytest.mark.fast
def test_columns_of_text_keep_their_words_whole_while_there_is_room():
    lines = [["Backbone", "GFLOPs (paper)"], ["Segformer B3", "2412.4"]]
    assert column_widths(lines, 0, 80) == [12, 14]
    assert column_widths(lines, 0, 24) == [12, 8]
    assert column_widths(lines, 1, 24) == [12, 8]
    assert column_widths(lines, 0, 12) == [None, None]


WORDS = ["Self-Attention", "Latency", "0.931", "0.0274", "missing", "357.2", "GFLOPs", "(dB)", "Backbone", "27.06"]


@pytest.mark.fast
@pytest.mark.parametrize("width", [20, 40, 60, 80, 120, 200])
def test_no_word_is_broken_and_columns_without_room_are_named(capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    header = ["Mixer", *(f"{word} {i}" for i, word in enumerate(WORDS[1:])), "paper"]
    lines = [[WORDS[0], *WORDS[-i:], *WORDS[1:-i], "27.1 ± 0.2"] for i in range(1, 8)]
    ranks = [0, 3, 2, 1, 1, 2, 2, 3, 4, 5, 6]
    print_grid("Table", header, lines, ranks=ranks)
    drawn, _, named = capsys.readouterr().out.partition("no room here for ")
    left_out = [name for name in header if name in named]
    kept = [i for i, name in enumerate(header) if name not in left_out and name != "paper"]
    found = Counter(drawn.split())
    assert all(found[word] >= n for word, n in Counter(line[i] for line in lines for i in kept).items())
    assert max((ranks[i] for i in kept), default=0) <= min((ranks[header.index(name)] for name in left_out), default=9)
    assert max(map(len, drawn.splitlines())) <= width
    assert (left_out == []) == (width >= 120)


@pytest.mark.fast
def test_empty_columns_without_room_are_not_named(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    print_grid("Table", ["Mixer", "GFLOPs", "Latency (s)", "Memory"], [["Self-Attention", "357.2", "", ""]] * 2)
    assert capsys.readouterr().out.splitlines()[-1] == "no room here for GFLOPs"
    print_grid("Table", ["Mixer", "Latency (s)"], [["Self-Attention", ""]])
    assert "no room" not in capsys.readouterr().out


@pytest.mark.fast
@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_a_sentence_breaks_between_words_on_a_terminal_and_nowhere_in_a_file(capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    path = f"/{'a-long-folder/' * 8}file"
    lines = ["  " + " ".join(WORDS * 2), f"written in {path}", "", "short  one\n  its second"]
    say(*lines)
    assert capsys.readouterr().out.splitlines() == "\n".join(lines).split("\n")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    say(*lines)
    shown = capsys.readouterr().out
    assert shown.split() == " ".join(lines).split()
    assert shown.endswith("short  one\n  its second\n")
    assert all(len(line) <= width or line == path for line in shown.splitlines())


@pytest.mark.fast
@pytest.mark.parametrize("width", [16, 30, 40, 60, 80, 120, 200])
def test_a_number_is_never_parted_from_its_spread(capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    lines = [["Self-Attention", *(f"{20 + i}.50 ± 0.{i}0{' (not shown to learn)' * (i % 2)}" for i in range(6))]] * 3
    print_grid("Table", ["Mixer", *(f"Quality {i} (dB)" for i in range(6))], lines, whole=1)
    drawn, _, named = capsys.readouterr().out.partition("no room here for ")
    assert drawn.count("±") == len(re.findall(r"\d ± \d", drawn)) == 18 - 3 * named.count("Quality")


@pytest.mark.fast
def test_the_clock_goes_on_while_nothing_is_reported(run):
    show, written = table()
    with show:
        show.plan([Place(run.digest, run.row, run.stage, "waiting")])
        show.started(run)
        drawn_anew = []
        show._above = lambda: drawn_anew.append(1) or []
        while "1 running, 0:02" not in written.getvalue():
            time.sleep(0.1)
    assert drawn_anew == []  # but the clock, beside which a latency may be timed


def test_before_a_plan_there_is_a_clock_too_and_no_empty_table():
    show, written = table()
    with show:
        assert "at work, 0:00" in written.getvalue()
    assert "0 of 0 runs" not in written.getvalue()


def on_terminal(*arguments, root, interrupt_at=None, **environment):
    """A command's bytes on a terminal of 80 columns and its exit code; Ctrl-C is typed when `interrupt_at` is seen."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    command = [sys.executable, "-m", "afno_repro", *arguments]
    surroundings = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "COLUMNS", "LINES")} | {
        "TERM": "xterm-256color",
        **environment,
    }

    def own_terminal():
        os.setsid()
        ioctl(0, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    process = subprocess.Popen(
        command, cwd=root, env=surroundings, stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=own_terminal
    )
    os.close(theirs)
    said = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux: the other side is closed
            break
        said += part
        if not part:
            break
        if interrupt_at and interrupt_at in said:
            os.write(ours, b"\x03")
            interrupt_at = None
    os.close(ours)
    return said, process.wait(timeout=60)


def test_a_run_on_a_terminal_draws_a_table_without_colour_where_none_is_wanted(tmp_path):
    write_spec(tmp_path)
    said, code = on_terminal(
        "run", "small", "--scale", "smoke", "--device", "cpu", "--jobs", "1", root=tmp_path, NO_COLOR="1"
    )
    assert code == 0
    assert b"Traceback" not in said
    assert not COLOUR.search(said)
    assert "5 of 5 runs done" in said.decode()
    assert "A small table" in said.decode()
    assert said.rindex(b"\x1b[?25h") > said.rindex(b"\x1b[?25l")


def test_an_interrupted_run_leaves_the_terminal_as_it_was(tmp_path):
    write_spec(tmp_path, SMALL.replace("epochs: 3", "epochs: 3000"))
    said, code = on_terminal(
        "run", "small", "--device", "cpu", "--row", "gfn", "--jobs", "1", root=tmp_path, interrupt_at=b"loss "
    )
    assert code == 130
    assert COLOUR.search(said)
    assert b"Traceback" not in said
    assert said.rindex(b"\x1b[?25h") > said.rindex(b"\x1b[?25l")
    assert "1 interrupted" in said.decode()
    assert "the same command continues" in said.decode()

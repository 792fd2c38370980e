"""No command reaches for a network: any of its processes would end at once with exit code 97."""

import os
import re
import shutil
import subprocess
import sys

import pytest
import torch

from tests.command import afno
from tests.specs import ROOT, write_spec
from tests.test_security import VISUAL

GUARD = """
import os, socket, sys
ABROAD = (socket.AF_INET, socket.AF_INET6)
def guard(event, arguments):
    asked = event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo")
    made = event == "socket.__new__" and arguments[1] in ABROAD
    used = event in ("socket.connect", "socket.bind", "socket.sendto") and arguments[0].family in ABROAD
    if asked or made or used:
        os.write(2, f"{event} {arguments[1:]}\\n".encode())
        os._exit(97)
sys.addaudithook(guard)
"""
TRIES = {
    "socket": "import socket; socket.socket()",
    "name": "import socket; socket.getaddrinfo('localhost', 80)",
    "page": "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9')",
    "child": "import subprocess, sys; "
    "sys.exit(subprocess.run([sys.executable, '-c', 'import socket; socket.socket(socket.AF_INET6)']).returncode)",
    "pair": "import socket; socket.socketpair(); print('fine')",
}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """An environment in which no process can open a socket that leaves the machine."""
    site = tmp_path_factory.mktemp("site")
    (site / "sitecustomize.py").write_text(GUARD)
    return {**os.environ, "PYTHONPATH": str(site)}


@pytest.mark.parametrize("kind", TRIES)
def test_the_guard_ends_what_opens_a_socket(guarded, kind):
    done = subprocess.run([sys.executable, "-c", TRIES[kind]], env=guarded, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == ((0, "fine\n") if kind == "pair" else (97, "")), done.stderr


IN_TURN = """
import shlex, sys
from afno_repro.cli import main
for line in sys.argv[1:]:
    sys.argv[1:] = shlex.split(line)
    try:
        main()
    except SystemExit as end:
        print("ended with", end.code)
"""


def test_no_command_opens_a_socket(guarded, tmp_path):
    write_spec(tmp_path, VISUAL)
    shutil.copy(
        ROOT / "experiments/table4.yaml", tmp_path / "experiments"
    )  # whose networks are profiled without a spec
    torch.save({"w": torch.ones(2)}, tmp_path / "w.pt")
    run = afno("run", "small", "--scale", "smoke", "--jobs", "2", "--workers", "1", root=tmp_path, env=guarded)
    assert "measured" in (tmp_path / "runs/smoke/cells.csv").read_text(), run.stderr
    weights = next((tmp_path / "runs").glob("pretrain-gfn-*/weights.safetensors"))
    others = [
        f"visualize small --scale smoke --row gfn --out out --from {weights}",
        f"export {weights.parent} --out network.onnx",
        *("list", "report", "check small", "data", "doctor", "profile small --scale smoke"),
        "profile --mixer afno --res 64",
        "convert w.pt --format gfnet --out x.safetensors",
    ]
    done = subprocess.run(
        [sys.executable, "-c", IN_TURN, *others], cwd=tmp_path, env=guarded, capture_output=True, text=True
    )
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert re.findall("ended with (.*)", done.stdout) == ["0"] * (len(others) - 1) + ["2"], done.stderr

"""`python -m afno_repro` is the `afno` command."""

import os
import sys

if not sys.flags.safe_path and sys.path[0] == os.getcwd() != os.path.dirname(os.path.dirname(__file__)):
    del sys.path[0]  # nothing is imported from the folder that one happens to stand in, but this package

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # what is imported may swallow an interruption

from afno_repro.cli import main  # noqa: E402

if __name__ == "__main__":
    main()

"""`python -m afno_repro` is the `afno` command."""

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # what is imported may swallow an interruption

from afno_repro.cli import main  # noqa: E402

if __name__ == "__main__":
    main()

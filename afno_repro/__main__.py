"""`python -m afno_repro` is the `afno` command."""

from afno_repro.cli import main

if __name__ == "__main__":
    main()

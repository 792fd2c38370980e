"""What a stage starts from beside an earlier one: `init: {weights: FILE}`, known by what the file holds."""

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from afno_repro.errors import ConfigError, Problem, is_refused
from afno_repro.files import open_regular


def weights_file(init: Any, root: Path) -> Path | None:
    """The file of weights that an `init` names, from `root` on; None where it names an earlier stage or nothing."""
    if not isinstance(init, dict):
        return None
    if set(init) != {"weights"} or not isinstance(init["weights"], str):
        raise ConfigError(
            Problem("must be an earlier stage or {weights: FILE}", ("init",), "a file that `afno convert` wrote")
        )
    return root / init["weights"]


def identity(path: Path) -> str:
    """What stands for a file of weights in a run's identity: its SHA-256, wherever it lies. Raises ConfigError."""
    try:
        state = path.stat()
        return _sha256(path, state.st_mtime_ns, state.st_size)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        hint = "`afno convert` writes such a file; a path that is not absolute begins at the root"
        problem = Problem(f"{path}: {reason}", ("init", "weights"), hint, refused=is_refused(error))
        raise ConfigError(problem) from None


@lru_cache(maxsize=100)
def _sha256(path: Path, mtime_ns: int, size: int) -> str:
    """Read again only after the file's time or size has changed."""
    with open_regular(path) as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"  # type: ignore[arg-type]

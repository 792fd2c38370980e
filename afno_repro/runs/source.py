"""The code that makes numbers: its commit, whether files differ from it, and a hash of the package's source."""

import ast
import hashlib
import io
import os
import re
import subprocess
import sys
import tokenize
from functools import cache
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any

from afno_repro.config import RunConfig
from afno_repro.contents import Contents, sha256_of

PACKAGE = Path(__file__).resolve().parents[1]
MEMORY = Path(cache_from_source(str(PACKAGE / "__init__.py"))).parent  # hashes lie beside the bytecode
ASIDE = (tokenize.COMMENT, tokenize.NL, tokenize.ENCODING, tokenize.ENDMARKER)
SPACE = {tokenize.NEWLINE: "\n", tokenize.INDENT: ">", tokenize.DEDENT: "<"}  # whatever they are written with
F_STRINGS = tuple(
    (getattr(tokenize, f"{kind}_START"), getattr(tokenize, f"{kind}_END"))
    for kind in ("FSTRING", "TSTRING")
    if hasattr(tokenize, f"{kind}_START")
)  # which newer Pythons take apart


@cache
def code_version() -> dict[str, Any]:
    """The commit of this package's own checkout, whether package or specs differ from it, and the source's hash.

    Where there is no commit to name, `code` says why. To be asked as a command starts: a commit may come later.
    """
    commit, why = _git("rev-parse", "HEAD")
    top, _ = _git("rev-parse", "--show-toplevel")
    if commit is not None and Path(top or "").resolve() != PACKAGE.parent:
        commit, why = None, "the package is no part of the checkout that it lies in"
    changes = None if commit is None else _git("status", "--porcelain", "--", "afno_repro", "experiments")[0]
    known = {"commit": commit, "dirty": None if changes is None else bool(changes), "source": source_hash()}
    return known if commit is not None else {**known, "code": why}


def _git(*arguments: str) -> tuple[str | None, str]:
    """What git says of the package's own folder, whatever the environment tells it; or None and why."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(PACKAGE.parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, env={**environment, "LC_ALL": "C"})
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"git cannot be asked ({error})"
    if done.returncode == 0:
        return done.stdout.strip(), ""
    first = done.stderr.strip().partition("\n")[0]
    return None, "the checkout belongs to another user" if "dubious ownership" in first else "not a checkout"


@cache
def source_hash() -> str:
    """Sixteen hexadecimal digits of the SHA-256 of all files of the package: their names and tokens."""
    files = sorted(PACKAGE.rglob("*.py"))
    hashes = Contents(MEMORY, lambda file: tokens_hash(file.read_text())).hashes(files)
    lines = [f"{file.relative_to(PACKAGE)} {found}" for file, found in zip(files, hashes, strict=True)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def source_of(config: RunConfig, package: str) -> str | None:
    """The hash of the source that a run's numbers come from: the package's, with that of a mixer of one's own.

    None where the module of that mixer is not found.
    """
    module = own_module(config)
    if module is None:
        return package
    own = _own_hash(module)
    return hashlib.sha256(f"{package} {own}".encode()).hexdigest()[:16] if own else None


def own_module(config: RunConfig) -> str | None:
    """The module, or the package that it lies in, of a run's mixer of one's own; None where it has no such mixer."""
    mixer = config.model.mixer if config.model else None
    return re.split("[.:]", mixer.name)[0] if mixer is not None and ":" in mixer.name else None


@cache
def _own_hash(package: str) -> str | None:
    """The names and tokens of the files of a module that is not imported for it: its own, or all of its package, and
    those of the modules beside it that these import."""
    specs = (finder.find_spec(package, None) for finder in sys.meta_path if hasattr(finder, "find_spec"))
    spec = next((spec for spec in specs if spec is not None), None)
    if spec is None:
        return None
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    files = sorted(file for folder in folders for file in folder.rglob("*.py")) or [Path(spec.origin or "")]
    top = folders[0].parent if folders else Path(spec.origin or "").parent
    files = _with_helpers([file for file in files if file.is_file()], top)
    hashes = Contents(MEMORY, _tokens_or_bytes).hashes(files)
    lines = [f"{file.name} {found}" for file, found in zip(files, hashes, strict=True)]
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def _with_helpers(files: list[Path], folder: Path) -> list[Path]:
    """Files, and those of the modules in a folder that they import, and so on; of installed packages there are too
    many."""
    found = list(files)
    for file in found if folder.name not in ("site-packages", "dist-packages") else ():  # it grows
        for name in sorted(_imported(file) - {PACKAGE.name}):
            beside = [folder / f"{name}.py", *sorted((folder / name).rglob("*.py"))]
            found += [each for each in beside if each.is_file() and each not in found]
    return found


def _imported(file: Path) -> set[str]:
    """The first names of the modules that a file imports; none where it is no Python."""
    try:
        nodes = list(ast.walk(ast.parse(file.read_bytes())))
    except (OSError, SyntaxError, ValueError, RecursionError):
        return set()
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level]
    return {name.partition(".")[0] for name in names}


def _tokens_or_bytes(file: Path) -> str:
    """The hash of a file's tokens, or of its bytes where they are no Python."""
    try:
        return tokens_hash(file.read_text())
    except (OSError, SyntaxError, ValueError, tokenize.TokenError):
        return sha256_of(file)


def tokens_hash(source: str) -> str:
    """SHA-256 of a file's tokens without comments and docstrings; the same under every Python that reads it."""
    return hashlib.sha256("\0".join(_tokens(source)).encode()).hexdigest()


def _tokens(source: str) -> list[str]:
    """The tokens that do something; a string that stands alone does nothing."""
    lines, found, line = io.StringIO(source).readlines(), list[str](), list[tuple[int, str]]()
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    for token in tokens:
        kind, text = token.type, token.string
        ends = dict(F_STRINGS).get(kind)
        if ends is not None:
            kind, text = tokenize.STRING, _f_string(tokens, kind, ends, token.start, lines)
        if kind in ASIDE:
            continue
        if kind in SPACE:
            stands_alone = [of for of, _ in line] == [tokenize.STRING]
            found += [] if stands_alone else [*(word for _, word in line), SPACE[kind]]
            line = []
        else:
            line.append((kind, text))
    return found


def _f_string(tokens: Any, begins: int, ends: int, start: tuple[int, int], lines: list[str]) -> str:
    """The whole of a formatted string as it is written, from the token that begins it to the one that ends it."""
    depth = 1
    while depth:
        token = next(tokens)
        depth += (token.type == begins) - (token.type == ends)
    row, column = start
    last, end = int(token.end[0]), int(token.end[1])
    if row == last:
        return lines[row - 1][column:end]
    return lines[row - 1][column:] + "".join(lines[row : last - 1]) + lines[last - 1][:end]

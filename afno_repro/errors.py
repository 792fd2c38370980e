"""Errors that a user can mend, each with the exit code that the command line returns for it."""

import errno
import os
import signal
import tempfile
from dataclasses import dataclass, replace


class AfnoError(Exception):
    """A mistake with a next step: printed without a traceback."""

    exit_code = 1


@dataclass(frozen=True)
class Problem:
    """One mistake in a configuration: the key it concerns (outermost part first), what is wrong and what to do next."""

    message: str
    key: tuple[str, ...] = ()
    hint: str = ""
    place: str = ""  # file:line:column once it is known
    unknown: bool = False  # the key itself is the mistake: without it the rest can be looked at
    refused: bool = False  # no mistake: the system does not give what lies there

    def __str__(self) -> str:
        where = ": ".join(part for part in (self.place, ".".join(self.key)) if part)
        text = f"{where}: {self.message}" if where else self.message
        return f"{text}\n  {self.hint}" if self.hint else text


class ConfigError(AfnoError):
    """A spec, an option or a size that cannot be used; holds every problem found, not only the first."""

    def __init__(self, *problems: Problem | str):
        self.problems = tuple(Problem(p) if isinstance(p, str) else p for p in problems)
        self.exit_code = StorageError.exit_code if all(p.refused for p in self.problems) else 2
        super().__init__("\n".join(str(p) for p in self.problems))

    def within(self, *key: str) -> "ConfigError":
        """The same problems, seen from the part that holds `key`."""
        return ConfigError(*(replace(p, key=(*key, *p.key)) for p in self.problems))


class DataError(AfnoError):
    """Data or a part of the environment is missing or broken."""

    exit_code = 3


class LoadingError(AfnoError):
    """A process that prepared data ended."""


class LockedError(AfnoError):
    """Another process holds what was asked for."""

    exit_code = 6


class StorageError(AfnoError):
    """A file or folder cannot be read or written."""

    exit_code = 7


# How libraries of CPUs and GPUs say it besides "out of memory", as CUDA, HIP and NCCL do.
NO_MEMORY = (
    "can't allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUFFT_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "CUSOLVER_STATUS_ALLOC_FAILED",
    "HIPBLAS_STATUS_ALLOC_FAILED",
    "rocblas_status_memory_error",
    "HIPFFT_ALLOC_FAILED",
    "miopenStatusAllocFailed",
)
# What they say of little memory, and of other things: FFTs, handles and convolutions that find no working space.
LITTLE_MEMORY = (
    "CUFFT_INTERNAL_ERROR",
    "HIPFFT_INTERNAL_ERROR",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_NOT_INITIALIZED",
    "unable to find an engine to execute this computation",
)
SYSTEMS_WORDS = {os.strerror(number) for number in errno.errorcode}  # all that torch's store passes on


def no_memory(error: BaseException) -> bool:
    """Whether an error says that device or host had no memory; torch's own is a RuntimeError with such words."""
    words = ("out of memory", *NO_MEMORY)
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(each in str(error) for each in words)
    )


def little_memory(error: BaseException) -> bool:
    """Whether an error may say that a GPU had no memory: what takes less of it tells."""
    return isinstance(error, RuntimeError) and any(each in str(error) for each in LITTLE_MEMORY)


def refusal(error: BaseException) -> StorageError | None:
    """What to tell where the system refused a file, a process or memory; None of any other error."""
    if isinstance(error, OSError):
        where = str(error.filename or "the system")
        where = where if len(where) < 300 else f"{where[:100]}...{where[-100:]}"
        return StorageError(f"{where}: {error.strerror or error}\n  `afno doctor` looks at folders and limits")
    if no_memory(error):
        return StorageError("the system: there is no more memory\n  with more of it the same command continues")
    if isinstance(error, RuntimeError) and (words := str(error).partition("\n")[0]) in SYSTEMS_WORDS:
        where = f"the file in {tempfile.gettempdir()} at which the processes of this command meet"
        return StorageError(f"{where}: {words}\n  the same command continues; TMPDIR names another folder")
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return StorageError("the system: no more threads may be started\n  `ulimit -u` says how many processes may be")
    return None


class Diverged(AfnoError):
    """The loss is not finite any more: an outcome of a run, not a fault of the program."""


class Interrupted(AfnoError):
    """A signal asked the command to stop; the exit code is the shell's for that signal.

    SIGUSR1, with which schedulers ask first, SIGHUP and SIGXCPU have SIGTERM's.
    """

    def __init__(self, signal_number: int):
        self.exit_code = 128 + (signal.SIGINT if signal_number == signal.SIGINT else signal.SIGTERM)
        super().__init__(f"stopped by signal {signal_number}; the same command continues")


MISTAKEN = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.EOVERFLOW, errno.ELOOP, errno.ENAMETOOLONG)


def is_refused(error: OSError | ValueError) -> bool:
    """Whether the system does not give a file that lies there; else another one has to be named."""
    return isinstance(error, OSError) and error.errno not in MISTAKEN


def require(*checks: tuple[bool, str, str]) -> None:
    """Raise one ConfigError with every check that fails; a check is (holds, key, what is allowed)."""
    failed = [Problem(message, (key,)) for holds, key, message in checks if not holds]
    if failed:
        raise ConfigError(*failed)

"""The processes that train: one alone, or several that share every batch; their device, random states and signals.

Nothing else imports torch.distributed. Alone, every function here is the obvious one.
"""

import atexit
import ctypes
import faulthandler
import os
import resource
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from afno_repro.backbones.layers import Block
from afno_repro.errors import AfnoError, Interrupted, LoadingError

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
PR_SET_PDEATHSIG = 1
WAIT = timedelta(minutes=30)  # for the other processes, before giving up on them
MEETING = timedelta(minutes=1)  # after running out of memory
ENDED = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")  # gloo's words
LATE = ("Timed out waiting", "Watchdog caught collective operation timeout")  # gloo's and NCCL's


@dataclass(frozen=True)
class Place:
    """Where this process stands among those that train together; `address` is where they meet: tcp://host:port of process 0, or a file:// that is new."""

    rank: int
    ranks: int
    local_rank: int
    address: str
    parent: int  # the process that started it


def join(place: Place, device: str) -> None:
    """Become one of several processes, and end with their parent; SIGUSR2 makes it tell where it is. Raises AfnoError when the others do not come."""
    end_with(place.parent)
    faulthandler.register(signal.SIGUSR2)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # outside of a training: one that tidies up first might wait for the others
    if device == "cuda":
        torch.cuda.set_device(place.local_rank)
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, init_method=place.address, rank=place.rank, world_size=place.ranks, timeout=WAIT)
    except RuntimeError as error:  # of which the errors of torch.distributed are some
        why = f"the {place.ranks} processes of this command did not all come to {place.address}: {str(error).splitlines()[0]}"
        raise AfnoError(f"{why}\n  the same command continues") from error
    atexit.register(leave)


def end_with(parent: int) -> None:
    """Have the kernel send SIGTERM when the process that started this one ends, however it does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(128 + signal.SIGTERM)


def leave() -> None:
    """Part from the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """This process's number; process 0 writes files and talks to the user."""
    return dist.get_rank() if dist.is_initialized() else 0


def ranks() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def start(device: str, threads: int) -> torch.device:
    """Set the number of threads and return the device."""
    torch.set_num_threads(threads)
    return torch.device(device, torch.cuda.current_device()) if device == "cuda" else torch.device(device)


def share(model: nn.Module, device: torch.device) -> nn.Module:
    """The model as all processes train it: gradients are averaged, and so are batch norm's statistics on GPUs."""
    if ranks() == 1:
        return model
    if device.type == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")  # depthwise convolutions: slower, not wrong
    return DistributedDataParallel(model, device_ids=[device.index] if device.type == "cuda" else None)


def same_buffers(model: nn.Module) -> None:
    """Give every process the first one's buffers: batch norm's statistics, which its weights are saved with."""
    if ranks() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def recompute_blocks(model: nn.Module) -> None:
    """Keep no activations inside mixer blocks: the backward pass computes them again, for less memory."""
    for module in model.modules():
        if isinstance(module, Block):
            module.forward = partial(checkpoint, module.forward, use_reentrant=False)  # type: ignore[method-assign]


def unsynchronised(model: nn.Module) -> AbstractContextManager[Any]:
    """Inside, a backward pass leaves its gradients with this process: more of the batch is to come."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()


def total(values: Tensor) -> Tensor:
    """The sum of a tensor over all processes."""
    if ranks() > 1:
        dist.all_reduce(values)
    return values


def anywhere(*flags: bool) -> list[bool]:
    """Whether each flag is true in any process."""
    return list(flags) if ranks() == 1 else total(torch.tensor(flags).int()).bool().tolist()


def agreed(value: Any) -> Any:
    """What process 0 says."""
    if ranks() == 1:
        return value
    said = [value]
    dist.broadcast_object_list(said, src=0, device=torch.device("cpu"))
    return said[0]


def gathered(value: Any) -> list[Any]:
    """What every process says, in their order."""
    if ranks() == 1:
        return [value]
    said = [None] * ranks()
    dist.all_gather_object(said, value)
    return said


def meet() -> None:
    """Wait a while until all processes are here, out of what they did together. Raises AfnoError when one is not: it may wait elsewhere."""
    if ranks() == 1:
        return
    try:
        dist.new_group(timeout=MEETING, backend="gloo")
    except RuntimeError as error:
        raise AfnoError(f"process {rank()} ran out of memory, another one did not\n  --micro-batch and --checkpoint-activations need less") from error


def deserted(error: BaseException) -> bool:
    """Whether an error says that another process ended, or does not come."""
    return ranks() > 1 and (isinstance(error, dist.DistError) or any(words in str(error) for words in (*ENDED, *LATE)))


def why_deserted(error: BaseException) -> str:
    """The beginning of a sentence on it; of a process that does not come, with where it was waited for."""
    late = any(words in str(error) for words in LATE)
    why = f"did not come within {WAIT}, here:\n{''.join(traceback.format_tb(error.__traceback__))}\n" if late else "ended, "
    return f"another of the {ranks()} processes {why}"


def peak_memory_mib(device: str) -> float:
    """The most memory that this process has held: of the device on CUDA, resident on a CPU."""
    return torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def seed_everything(seed: int) -> None:
    """Seed the generators that layers draw from (initial weights, dropout)."""
    torch.manual_seed(seed)


def part_ways(seed: int) -> None:
    """Give each process but the first random numbers of its own, once all have built the same model."""
    if rank() > 0:
        torch.manual_seed(seed + (rank() << 32))


def random_states() -> dict[str, Any]:
    """This process's generators' states, for a checkpoint."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None}


def restore_random_states(states: dict[str, Any]) -> None:
    """The inverse of random_states."""
    torch.set_rng_state(states["cpu"])
    if states["cuda"] is not None:
        torch.cuda.set_rng_state(states["cuda"])


class StopFlag:
    """The first signal that asked this process to stop, or None."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def set(self, number: int, frame: FrameType | None) -> None:
        """Remember the first signal; a second one gets the default handling, at once."""
        self.signal = number
        for each in STOP_SIGNALS:
            signal.signal(each, signal.SIG_DFL)


@contextmanager
def stop_flag() -> Iterator[StopFlag]:
    """A flag that SIGTERM, SIGINT and SIGUSR1 set inside the block, instead of ending the process.

    An error after a signal is the signal's own: it may have ended a data-loading worker or another process. Raises Interrupted.
    """
    flag = StopFlag()
    before = {number: signal.signal(number, flag.set) for number in STOP_SIGNALS}
    try:
        yield flag
    except (LoadingError, RuntimeError) as error:
        if flag.signal is None:
            raise
        raise Interrupted(flag.signal) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

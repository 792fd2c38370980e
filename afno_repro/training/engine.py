"""The processes that train: one alone, or several that share every batch; their device and random states.

Nothing else imports torch.distributed. Alone, every function here is the obvious one.
"""

import atexit
import ctypes
import faulthandler
import json
import os
import secrets
import signal
import sys
import traceback
import warnings
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from afno_repro.config import Machine
from afno_repro.errors import AfnoError, DataError, StorageError, refusal
from afno_repro.memory import start_peak
from afno_repro.precision import set_precision
from afno_repro.threads import use_threads

PR_SET_PDEATHSIG = 1
WAIT = timedelta(minutes=30)  # for the other processes, before giving up on them
SHOWING = timedelta(seconds=30)  # for those that are connected to show who they are
SOON, MEETING = timedelta(seconds=6), timedelta(minutes=1)  # after running out of memory: without a word, and in all
ENDED = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")  # gloo's words
LATE = ("Timed out waiting", "Watchdog caught collective operation timeout")  # gloo's and NCCL's


@dataclass(frozen=True)
class Place:
    """Where this process stands among those that train together.

    `address` is where they meet: tcp://host:port of process 0, or the path of a new file. `says` is the file descriptor
    at which it tells the user what cannot wait; what it says otherwise may be held back.
    """

    rank: int
    ranks: int
    local_rank: int
    address: str
    parent: int  # the process that started it
    says: int = 2


def join(place: Place, device: str) -> None:
    """Become one of several processes, and end with their parent; SIGUSR2 makes it tell where it is.

    Raises AfnoError when the others do not come, DataError when somebody else does.
    """
    end_with(place.parent)
    faulthandler.register(signal.SIGUSR2)
    signal.signal(
        signal.SIGINT, signal.SIG_DFL
    )  # outside of a training: one that tidies up first might wait for the others
    if device == "cuda":
        torch.cuda.set_device(own_gpu(place.local_rank, torch.cuda.device_count()))
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    where: dict[str, Any] = {"init_method": place.address}
    if not place.address.startswith("tcp://"):
        where = {"store": dist.FileStore(place.address, place.ranks)}  # type: ignore[attr-defined]
        where["store"].set_timeout(WAIT)
        ctypes.pythonapi.Py_IncRef(ctypes.c_void_p(id(where["store"])))  # for good: it aborts where its own end fails
    try:
        dist.init_process_group(backend, **where, rank=place.rank, world_size=place.ranks, timeout=WAIT)
        store_of_all().set(f"says/{place.rank}", str(place.says))
        strangers = unrecognised()
    except RuntimeError as error:  # of which the errors of torch.distributed are some
        why = (
            f"the {place.ranks} processes of this command did not all come to {place.address}: "
            f"{str(error).partition('. ')[0].splitlines()[0]}"
        )
        raise refusal(error) or AfnoError(f"{why}\n  the same command continues") from error
    if strangers:
        who = f"somebody else answered in place of process {', '.join(map(str, strangers))}"
        raise DataError(
            f"{who}; nothing of it was used\n"
            "  the same command tries again; another user of this machine may call its ports"
        )
    atexit.register(leave if device == "cpu" else break_off)


def own_gpu(local_rank: int, visible: int) -> int:
    """Which of the visible GPUs is this process's: that of its number, or the only one that it was given.

    Raises DataError where it has none.
    """
    if local_rank >= visible > 1:
        raise DataError(f"process {local_rank} of this machine sees {visible} CUDA devices, none of which is its own")
    return local_rank if visible > 1 else 0


def unrecognised() -> list[int]:
    """The processes at whose connections somebody else is.

    That is one who does not show what they left in the store, which is theirs alone.
    """
    store, token = store_of_all(), secrets.token_bytes(32)
    store.set(f"token/{rank()}", token.hex())
    shown = torch.zeros(ranks(), len(token), dtype=torch.uint8)
    mine = torch.tensor(list(token), dtype=torch.uint8).repeat(ranks(), 1)
    dist.all_to_all_single(shown, mine, async_op=True).wait(SHOWING)  # type: ignore[union-attr]
    return [each for each in range(ranks()) if bytes(shown[each].tolist()).hex() != store.get(f"token/{each}").decode()]


def store_of_all() -> Any:
    """The store at which the processes met."""
    return dist.distributed_c10d._get_default_store()


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


def break_off() -> None:
    """End without the other processes, who find out: where they are in NCCL, taking the group down waits for them."""
    if dist.is_initialized():
        dist.distributed_c10d._abort_process_group()


def rank() -> int:
    """This process's number; process 0 writes files and talks to the user."""
    return dist.get_rank() if dist.is_initialized() else 0


def ranks() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def start(machine: Machine, precision: str) -> torch.device:
    """Set threads, precision and current device, and return that: of several GPUs the one that was joined on."""
    use_threads(machine.threads)
    device = torch.device(machine.device)
    if device.type == "cuda":
        device = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
        torch.cuda.set_device(device)
    set_precision(precision, device)
    start_peak(device)
    return device


def share(model: nn.Module, device: torch.device) -> nn.Module:
    """The model as all processes train it: gradients are averaged, and so are batch norm's statistics on GPUs.

    Buffers stay each process's own until `same_buffers`: training reads none that another could have changed.
    """
    if ranks() == 1:
        return model
    if device.type == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    warnings.filterwarnings(
        "ignore", message="Grad strides do not match bucket view strides"
    )  # depthwise convolutions: slower, not wrong
    warnings.filterwarnings("ignore", message=".broadcast_buffers. is deprecated")  # older versions know nothing else
    devices = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False)


def same_buffers(model: nn.Module) -> None:
    """Give every process the first one's buffers: batch norm's statistics, which its weights are saved with."""
    if ranks() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


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


def gathered(value: Any) -> list[Any]:
    """What every process says, in their order: plain data.

    It goes as JSON through the store at which they met, so that nothing that arrives is executed.
    """
    if ranks() == 1:
        return [value]
    store = store_of_all()
    turn = store.add(f"turns/{rank()}", 1)
    store.set(f"said/{turn}/{rank()}", json.dumps(value))
    total(torch.zeros(1))  # all have said it; this is where one that ended is noticed
    store.delete_key(f"said/{turn - 1}/{rank()}")  # which all have heard
    return [json.loads(store.get(f"said/{turn}/{each}")) for each in range(ranks())]


def agreed(value: Any) -> Any:
    """What process 0 says: plain data."""
    return gathered(value if rank() == 0 else None)[0]


def meet() -> None:
    """Wait a while until all processes are here, out of what they did together, and say so meanwhile.

    Raises StorageError when one is not, which may wait elsewhere: this one was refused memory alone.
    """
    if ranks() == 1:
        return
    store = store_of_all()
    turn = store.add(f"meetings/{rank()}", 1)
    store.set(f"here/{turn}/{rank()}", "")
    for waited in range(1, MEETING // SOON + 1):
        try:
            store.wait([f"here/{turn}/{each}" for each in range(ranks())], SOON)
            return
        except RuntimeError as error:  # as a file store is late
            if (refused := refusal(error)) is not None:
                raise refused from error
            left = (MEETING - waited * SOON).seconds
            told = f"process {rank()} ran out of memory and waits for the others, {left} s more at most\n"
            with suppress(BrokenPipeError):
                os.write(int(store.get(f"says/{rank()}")), told.encode())
    raise StorageError(
        f"process {rank()} ran out of memory, another one did not\n"
        "  --micro-batch and --checkpoint-activations need less"
    )


def deserted(error: BaseException) -> bool:
    """Whether an error says that another process ended, or does not come; what the system refused is none."""
    said = any(words in str(error) for words in (*ENDED, *LATE))
    return ranks() > 1 and (said or (isinstance(error, dist.DistError) and refusal(error) is None))


def why_deserted(error: BaseException) -> str:
    """The beginning of a sentence on it; of a process that does not come, with where it was waited for."""
    late = any(words in str(error) for words in LATE)
    why = (
        f"did not come within {WAIT}, here:\n{''.join(traceback.format_tb(error.__traceback__))}\n"
        if late
        else "ended, "
    )
    return f"another of the {ranks()} processes {why}"


def seed_everything(seed: int) -> None:
    """Seed the generators that layers draw from (initial weights, dropout)."""
    torch.manual_seed(seed)


def part_ways(seed: int) -> None:
    """Give each process but the first random numbers of its own, once all have built the same model."""
    if rank() > 0:
        torch.manual_seed(seed + (rank() << 32))


def on_gpu() -> bool:
    """Whether this process has a context on a GPU; asking opens none."""
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def random_states() -> list[dict[str, Any]]:
    """The states of every process's generators, for a checkpoint."""
    mine = {"cpu": torch.get_rng_state()} | ({"cuda": torch.cuda.get_rng_state()} if on_gpu() else {})
    said = gathered({name: state.tolist() for name, state in mine.items()})
    return [{name: torch.tensor(state, dtype=torch.uint8) for name, state in states.items()} for states in said]


def restore_random_states(states: dict[str, Any]) -> None:
    """Continue with one process's part of `random_states`."""
    torch.set_rng_state(states["cpu"])
    if states.get("cuda") is not None and on_gpu():
        torch.cuda.set_rng_state(states["cuda"])

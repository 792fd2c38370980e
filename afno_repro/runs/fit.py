"""How many images a device takes at a time where nobody says: as many as its memory has room for, by the estimate.

On a CPU the whole share, unless the estimate exceeds all the memory there is.
"""

from bisect import bisect_right
from dataclasses import replace
from functools import partial

import torch

from afno_repro.config import Machine, RunConfig
from afno_repro.memory import available_bytes
from afno_repro.profiling.kept import network
from afno_repro.training import engine

ROOM = 0.85  # of the GPU memory that a process may take: the rest is for working space and what lies between tensors


def fitted(config: RunConfig, machine: Machine) -> Machine:
    """The machine with a micro-batch that its memory has room for, the same in all processes.

    As it was where the user chose one, where the whole share fits, and where not even one image does.
    """
    if config.train is None or config.model is None or machine.micro_batch is not None:
        return machine
    device = torch.device(machine.device)
    free = available_bytes(device, machine.per_gpu)
    room = None if free is None else free * ROOM if device.type == "cuda" else free
    net, share, again = network(config), images_of_each(config, machine), machine.activation_checkpointing
    needed = partial(net.training_bytes, device=machine.device, again=again)
    fits = share if room is None or needed(share) <= room else bisect_right(range(1, share), room, key=needed)
    fits = min(engine.gathered(fits))
    if not 0 < fits < share:
        return machine
    return replace(machine, micro_batch=-(-share // -(-share // fits)), fitted=True)


def halved(config: RunConfig, machine: Machine) -> Machine | None:
    """Half as many images at a time, after a GPU had no memory for them; None where the user chose, or there is one."""
    chosen = machine.micro_batch is not None and not machine.fitted
    if config.train is None or machine.device == "cpu" or chosen:
        return None
    at_a_time = machine.micro_batch or images_of_each(config, machine)
    return replace(machine, micro_batch=-(-at_a_time // 2), fitted=True) if at_a_time > 1 else None


def images_of_each(config: RunConfig, machine: Machine) -> int:
    """The largest share of a batch that a device has."""
    assert config.train is not None
    return -(-config.train.batch_size // machine.devices)

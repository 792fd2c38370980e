"""Several processes for one command, one a device: started by `engine.launch` on one machine, by torchrun or SLURM's srun on several.

Every process runs the whole command; they walk its plan together, and the first one alone writes and speaks.
"""

from collections.abc import Mapping

from afno_repro.config import Machine
from afno_repro.errors import ConfigError
from afno_repro.training.engine import Place, join

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
SRUN = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "MASTER_ADDR", "MASTER_PORT")


def take_place(machine: Machine, nodes: int, environment: Mapping[str, str]) -> bool:
    """Join the processes that torchrun, srun or `engine.launch` started; False where none of them did.

    Raises ConfigError when they are not as many as devices were asked for.
    """
    for names in (TORCHRUN, SRUN):
        if all(name in environment for name in names):
            rank, ranks, local_rank, host, port = (environment[name] for name in names)
            if int(ranks) != machine.devices:
                raise ConfigError(f"--devices and --nodes ask for {machine.devices} processes, {ranks} were started\n  both must say the same")
            join(Place(int(rank), int(ranks), int(local_rank), f"{host}:{port}"), machine.device)
            return True
    if nodes > 1:
        raise ConfigError(
            f"--nodes {nodes}: start the command on every node, by torchrun --nnodes {nodes} --nproc-per-node {machine.devices // nodes} -m afno_repro ...,\n"
            "  or by srun with MASTER_ADDR and MASTER_PORT in the environment"
        )
    return False

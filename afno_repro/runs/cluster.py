"""Workers as tasks of a cluster, by submitit: an array of SLURM's, or processes of this machine to try it with."""

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from afno_repro.errors import DataError

# The signal with which submitit, or SLURM in its name, says that a task's time is up: it may reach all processes of a
# task, but what it means is said to the command by SIGTERM, once, since a second signal would end it at once.
DEAF = 'trap "" "${SUBMITIT_PREEMPT_SIGNAL:-USR2}"; exec "$@"'
TIMES_UP = 1000  # as often a task may be queued again
ENDLESS_MIN = 365 * 24 * 60  # of a task on this machine


class Task:
    """A command below submitit; when its time is up or its place is needed, it keeps its work and is queued again."""

    def __init__(self, command: Sequence[str]):
        self.command, self.process = list(command), 0

    def __call__(self) -> None:
        self.process = os.spawnvp(os.P_NOWAIT, "sh", ["sh", "-c", DEAF, "sh", *self.command])
        code = os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])
        if code:
            sys.exit(code if code > 0 else 128 - code)

    def checkpoint(self) -> Any:
        """What is queued in its place, once the command has kept its work; submitit calls this at its signal."""
        from submitit.helpers import DelayedSubmission

        os.kill(self.process, signal.SIGTERM)
        os.waitpid(self.process, 0)
        return DelayedSubmission(Task(self.command))


def submit_tasks(
    command: Sequence[str], tasks: int, folder: Path, name: str, slurm: Mapping[str, str | bool] | None
) -> list[str]:
    """Start so many tasks that do a command; returns their ids. Their logs go to a folder.

    `slurm` are sbatch's own options, `time` in minutes among them; None starts the tasks on this machine's CPU. Raises
    ModuleNotFoundError without submitit, DataError where SLURM is not at hand or refuses.
    """
    import submitit

    try:
        if slurm is None:
            executor: Any = submitit.LocalExecutor(folder)
            executor.update_parameters(timeout_min=ENDLESS_MIN)
        else:
            executor = submitit.SlurmExecutor(folder, max_num_timeout=TIMES_UP)
            others = {key: value for key, value in slurm.items() if key != "time"}
            executor.update_parameters(time=int(slurm["time"]), job_name=name, additional_parameters=others)
        with executor.batch():
            jobs = [executor.submit(Task(command)) for _ in range(tasks)]
    except RuntimeError as error:
        raise DataError(f"SLURM took no task: {error}\n  --local starts the tasks on this machine's CPU") from error
    return [job.job_id for job in jobs]

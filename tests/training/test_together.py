"""Several processes that share a training, as a user starts them: the same numbers, the same resumption, one voice."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from torch.distributed import HashStore

from afno_repro.errors import StorageError
from afno_repro.runs import launch
from afno_repro.runs.store import Store
from afno_repro.training import engine
from tests.command import afno, start
from tests.specs import ROOT, SMALL, write_spec
from tests.training.test_loop import FINETUNED, MIXED, assert_same_training, left, needs, train

# Five images a step are two and three for two processes; seven to evaluate are four batches, the last of one image.
ODD = (
    FINETUNED.replace("epochs: 3", "epochs: 25")
    .replace("batch_size: 4", "batch_size: 5")
    .replace("test_crops: 8", "test_crops: 7")
)
RUN = ("finetune", "small", "--row", "afno", "--device", "cpu")
TWO = (*RUN, "--devices", "2")
MICRO = (*TWO, "--micro-batch", "2")  # one part for the first process, two for the second
STAGES = ("pretrain", "finetune")


@pytest.fixture(autouse=True)
def often(monkeypatch):
    """Commands keep their work after every step."""
    monkeypatch.setenv("AFNO_CHECKPOINT_EVERY_S", "0")


def directory(root: Path, stage: str) -> Path:
    (found,) = (root / "runs").glob(f"{stage}-afno-*")
    return found


def files(root: Path) -> list[bytes]:
    return [
        (directory(root, stage) / name).read_bytes() for stage in STAGES for name in ("weights.safetensors", "log.csv")
    ]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two uninterrupted processes leave and say."""
    root = tmp_path_factory.mktemp("two")
    write_spec(root, ODD)
    return root, afno(*MICRO, root=root)


def assert_same_stages(one: Path, other: Path) -> None:
    for stage in STAGES:
        assert_same_training(left(directory(one, stage)), left(directory(other, stage)), apart=("alive_1",))


def ends(done: "subprocess.CompletedProcess[str]") -> list[str]:
    return [line.split(" after ")[0] for line in done.stderr.splitlines() if " after " in line]


def test_two_processes_equal_one_evaluate_every_image_once_and_speak_with_one_voice(tmp_path, two):
    write_spec(tmp_path, ODD)
    one = afno(*RUN, "--jobs", "1", root=tmp_path)
    assert_same_stages(two[0], tmp_path)
    assert (two[1].stdout, ends(two[1])) == (one.stdout, ends(one))
    assert len(ends(one)) == len(STAGES)


def test_two_processes_mix_each_batch_as_one_does(tmp_path):
    """Nine images a step: four and five, mixed two at a time."""
    text = MIXED.replace("batch_size: 8", "batch_size: 9")
    write_spec(tmp_path, text)
    afno("pretrain", *MICRO[1:], root=tmp_path)
    one = train(needs(tmp_path, text)["afno", "pretrain", 0].config, tmp_path / "one")
    assert_same_training(left(directory(tmp_path, "pretrain")), one, apart=("alive_1",))


def test_torchrun_gives_the_same_with_whole_batches_too(tmp_path, two):
    write_spec(tmp_path, ODD)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "afno_repro",
        *TWO,
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert_same_stages(two[0], tmp_path)
    assert (done.stdout, ends(done)) == (two[1].stdout, ends(two[1]))


def children(process: "subprocess.Popen[str]") -> list[int]:
    return [int(child) for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def grandchild(pid: int) -> int:
    """A data-loading process of a rank, as soon as it has one."""
    while not (found := Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        time.sleep(0.01)
    return int(found[0])


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def interrupted(root: Path, workers: str, stop) -> "tuple[int, str]":
    """Start two processes, stop them by `stop(launcher, its children)` after a new checkpoint.

    Nobody may be left after five seconds.
    """
    checkpoints = "runs/pretrain-*/checkpoints/step-*"
    before = set(root.glob(checkpoints))
    process = start(*MICRO, "--workers", workers, root=root)
    deadline = time.monotonic() + 60
    while not set(root.glob(checkpoints)) - before:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    ranks = children(process)
    assert len(ranks) == 2
    stop(process.pid, ranks)
    asked = time.monotonic()
    _, err = process.communicate(timeout=30)
    while any(alive(rank) for rank in ranks):
        assert time.monotonic() - asked < 5
        time.sleep(0.05)
    assert not list(root.glob("runs/pretrain-*/record.json")), "it was over before it was stopped"
    assert "Traceback" not in err, err
    return process.returncode, err


def test_stopped_in_any_way_they_continue_bit_for_bit(tmp_path, two):
    write_spec(tmp_path, ODD)
    code, err = interrupted(tmp_path, "0", lambda launcher, ranks: os.kill(ranks[1], signal.SIGKILL))
    assert code == 1
    assert err.splitlines()[-2:] == [
        "another of the 2 processes ended, so afno/pretrain seed 0 stopped; the same command continues",
        "process 1 of 0 to 1 was killed by signal 9; the same command continues",
    ]
    code, err = interrupted(tmp_path, "1", lambda launcher, ranks: os.kill(grandchild(ranks[1]), signal.SIGKILL))
    assert code == 1
    assert "a data-loading process ended" in err or "another of the 2 processes ended" in err
    code, err = interrupted(tmp_path, "1", lambda launcher, ranks: os.kill(launcher, signal.SIGTERM))
    assert (code, err.splitlines()[-1:]) == (143, ["stopped by signal 15; the same command continues"])
    assert interrupted(tmp_path, "0", lambda launcher, ranks: os.kill(launcher, signal.SIGKILL))[0] == -signal.SIGKILL
    afno(*MICRO, root=tmp_path)
    assert files(tmp_path) == files(two[0])


def test_a_loss_that_is_not_finite_is_seen_by_all_wherever_temporary_files_lie(tmp_path):
    wild = FINETUNED.replace("lr: 1e-3\n", "lr: 1e30\n").replace("clip_norm: 1.0", "clip_norm: null")
    write_spec(tmp_path, wild)
    (tmp_path / "a b%20").mkdir()
    done = afno(*TWO, root=tmp_path, expect=4, env={**os.environ, "TMPDIR": str(tmp_path / "a b%20")})
    runs = needs(tmp_path, wild)
    assert [Store(tmp_path / "runs").record(runs["afno", stage, 0].digest).outcome for stage in STAGES] == [
        "diverged",
        "diverged",
    ]
    assert ends(done) == [f"afno/{stage} seed 0: diverged" for stage in STAGES]


MEMORY = """
import os, sys
from datetime import timedelta
from afno_repro import cli
from afno_repro.training import engine, loop
optimise, steps = loop.optimise, []
def greedy(*arguments):
    steps.append(1)
    if len(steps) == 3 and os.environ["RANK"] in "{ranks}":
        raise MemoryError
    return optimise(*arguments)
loop.optimise, engine.SOON, engine.MEETING = greedy, timedelta(seconds=1), timedelta(seconds=2)
sys.argv[0] = "afno"
cli.main()
"""


@pytest.mark.parametrize(("ranks", "expected"), [pytest.param("01", 4, marks=pytest.mark.slow), ("1", 7)])
def test_running_out_of_memory_is_an_outcome_where_all_do_and_no_hang_elsewhere(
    tmp_path, monkeypatch, capfd, ranks, expected
):
    write_spec(tmp_path)
    monkeypatch.setattr(launch, "COMMAND", ("-c", MEMORY.format(ranks=ranks)))
    monkeypatch.setattr(launch, "GRACE_S", 1.0)
    assert launch.launch(["pretrain", *TWO[1:], "--root", str(tmp_path)], 2, os.environ) == expected
    said = capfd.readouterr().err
    assert "Traceback" not in said
    if expected == 4:
        assert "afno/pretrain seed 0: out of memory" in said
    else:
        assert f"process {ranks} ran out of memory and waits for the others" in said
        assert f"process {ranks} ran out of memory, another one did not" in said


HANGING = """
import os, sys, time
from datetime import timedelta
from afno_repro import cli
from afno_repro.training import engine, loop
optimise, steps = loop.optimise, []
def sleepy(*arguments):
    steps.append(1)
    if len(steps) == 3 and os.environ["RANK"] == "1":
        time.sleep(600)
    return optimise(*arguments)
loop.optimise, engine.WAIT = sleepy, timedelta(seconds=3)
sys.argv[0] = "afno"
cli.main()
"""


def test_breaking_off_leaves_the_group_whatever_the_others_do():
    """Of which NCCL has two of its own; here it is a group of one, on a CPU."""
    code = (
        "import torch.distributed as dist; from afno_repro.training import engine;"
        "dist.init_process_group('gloo', store=dist.HashStore(), rank=0, world_size=1);"
        "engine.break_off(); engine.break_off(); print(dist.is_initialized(), engine.ranks())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.returncode) == ("False 1\n", 0)


def test_who_lacks_memory_alone_waits_for_the_others_though_nobody_reads_that_it_does(monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    alone = HashStore()
    alone.set("says/0", str(writing))
    for name, value in (("SOON", timedelta(milliseconds=10)), ("MEETING", timedelta(milliseconds=30))):
        monkeypatch.setattr(engine, name, value)
    for name, value in (("ranks", 2), ("rank", 0), ("store_of_all", alone)):
        monkeypatch.setattr(engine, name, lambda value=value: value)
    with pytest.raises(StorageError, match="process 0 ran out of memory, another one did not"):
        engine.meet()
    os.close(writing)


def test_a_process_that_others_wait_for_in_vain_ends_them_all_with_every_ones_stack(tmp_path, monkeypatch, capfd):
    write_spec(tmp_path)
    monkeypatch.setattr(launch, "COMMAND", ("-c", HANGING))
    monkeypatch.setattr(launch, "GRACE_S", 1.0)
    assert launch.launch(["pretrain", *TWO[1:], "--root", str(tmp_path)], 2, os.environ) == 1
    said = capfd.readouterr().err
    assert "Traceback" not in said
    assert "another of the 2 processes did not come within 0:00:03, here:" in said
    assert "in optimise" in said
    hung = said[said.index("process 1 of 0 to 1:") :]
    assert "most recent call first" in hung
    assert "in sleepy" in hung


CRAMPED = """
import os, resource, sys
from datetime import timedelta
from afno_repro import cli
from afno_repro.training import engine
engine.WAIT = timedelta(seconds=5)
gathered, total, (rank, word) = engine.gathered, engine.total, os.environ["CRAMPED"].split()
def cramped(value):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    def then_none(values):
        total(values)
        if os.environ["RANK"] == rank and word in repr(value):
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    engine.total = then_none
    try:
        return gathered(value)
    finally:
        engine.total = total
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
engine.gathered = cramped
sys.argv[0] = "afno"
cli.main()
"""


@pytest.mark.parametrize("cramped", ["1 None", pytest.param("0 /runs/", marks=pytest.mark.slow)])
def test_what_the_system_refuses_where_processes_meet_is_told_as_such_and_not_as_an_end_of_the_other(
    tmp_path, monkeypatch, capfd, cramped
):
    """Which process, once it has said what: nothing, the folder of a run; the others have heard it."""
    write_spec(tmp_path)
    monkeypatch.setenv("CRAMPED", cramped)
    monkeypatch.setattr(launch, "COMMAND", ("-c", CRAMPED))
    assert launch.launch(["pretrain", *TWO[1:], "--root", str(tmp_path)], 2, os.environ) == StorageError.exit_code
    said = capfd.readouterr().err
    assert "at which the processes of this command meet: Too many open files" in said
    assert "Traceback" not in said
    assert "terminate called" not in said


FILLING = """
import atexit, os, sys, time
from pathlib import Path
from typing import Any
from afno_repro import cli, fills
ended = Path(os.environ["ENDED"])
if os.environ["RANK"] == "1":
    atexit.register(ended.touch)
def patient(image, mask):
    deadline = time.monotonic() + 60
    while not ended.exists():
        assert time.monotonic() < deadline, "the other process waits for a filling"
        time.sleep(0.01)
    return fills.fill_mean(image, mask)
fills.FILLS["mean"] = patient
sys.argv[0] = "afno"
cli.main()
"""


def test_no_process_waits_for_what_one_does_alone_which_does_all_of_it(tmp_path, monkeypatch):
    """Validation images of three batches."""
    roots = {"one": tmp_path / "one", "two": tmp_path / "two"}
    for root in roots.values():
        write_spec(root, SMALL.replace("test_crops: 8", "test_crops: 130"))
    arguments = ("pretrain", "small", "--scale", "smoke", "--row", "fill_mean", "--row", "gfn", "--device", "cpu")
    afno(*arguments, "--jobs", "1", root=roots["one"])
    monkeypatch.setenv("ENDED", str(tmp_path / "ended"))
    monkeypatch.setattr(launch, "COMMAND", ("-c", FILLING))
    assert launch.launch([*arguments, "--devices", "2", "--root", str(roots["two"])], 2, os.environ) == 0
    one, two = ({kind: only(root, kind) for kind in ("baseline", "pretrain")} for root in roots.values())
    assert one["baseline"]["metrics"] == two["baseline"]["metrics"]
    assert {kind: record["provenance"]["devices"] for kind, record in two.items()} == {"baseline": 1, "pretrain": 2}


def only(root: Path, kind: str) -> Any:
    """The record of the one run of a kind."""
    (found,) = (root / "runs").glob(f"{kind}-*/record.json")
    return json.loads(found.read_text())


def addresses(pid: int) -> set[str]:
    """The local and remote addresses of a process's sockets, other than those that nobody is at."""
    inodes = {
        link[8:-1]
        for link in (os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir())
        if link.startswith("socket:")
    }
    found = set()
    for name in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
            parts = line.split()
            if parts[9] in inodes:
                found |= {part.partition(":")[0] for part in parts[1:3] if part.partition(":")[2] != "0000"}
    return found


def test_processes_on_one_machine_listen_and_speak_to_no_other(tmp_path):
    write_spec(tmp_path, ODD)
    seen: set[str] = set()

    def look(launcher: int, ranks: list[int]) -> None:
        seen.update(*(addresses(pid) for pid in (launcher, *ranks)))
        os.kill(launcher, signal.SIGTERM)

    assert interrupted(tmp_path, "0", look)[0] == 143
    assert seen == {"0100007F"}  # 127.0.0.1


EARLY = """
import os, sys
from afno_repro import cli
from afno_repro.runs import absent_data as absent
if os.environ["RANK"] == "1":
    absent.absent_data = lambda *arguments: os.kill(os.getpid(), 9)
sys.argv[0] = "afno"
cli.main()
"""


def test_a_process_that_ends_before_the_first_run_is_told_without_a_traceback(tmp_path, monkeypatch, capfd):
    write_spec(tmp_path)
    monkeypatch.setattr(launch, "COMMAND", ("-c", EARLY))
    assert launch.launch(["pretrain", *TWO[1:], "--root", str(tmp_path)], 2, os.environ) == 1
    said = capfd.readouterr().err
    assert "Traceback" not in said
    assert "process 1 of 0 to 1 was killed by signal 9; the same command continues" in said


def test_a_process_that_ends_while_they_meet_is_told_without_a_traceback(tmp_path, monkeypatch, capfd):
    write_spec(tmp_path)
    script = EARLY.replace(
        "from afno_repro.runs import absent_data as absent",
        "import torch.distributed as dist; from afno_repro.training import engine",
    )
    script = script.replace(
        "absent.absent_data = lambda *arguments: os.kill(os.getpid(), 9)",
        "dist.init_process_group = lambda *a, **k: os.kill(os.getpid(), 9)",
    )
    monkeypatch.setattr(launch, "COMMAND", ("-c", script))
    monkeypatch.setattr(launch, "GRACE_S", 0.5)
    assert launch.launch(["pretrain", *TWO[1:], "--root", str(tmp_path)], 2, os.environ) == 1
    said = capfd.readouterr().err
    assert "Traceback" not in said
    assert "process 1 of 0 to 1 was killed by signal 9; the same command continues" in said


def test_a_process_that_cannot_meet_the_others_says_so():
    place = engine.Place(rank=1, ranks=2, local_rank=1, address="tcp://127.0.0.1:9", parent=os.getppid())
    script = (
        "import datetime; from afno_repro.training import engine; engine.WAIT = datetime.timedelta(seconds=1); "
        f"engine.join(engine.{place}, 'cpu')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script.replace(f"parent={os.getppid()}", "parent=__import__('os').getppid()")],
        capture_output=True,
        text=True,
    )
    assert "AfnoError: the 2 processes of this command did not all come to tcp://127.0.0.1:9" in done.stderr


def test_fewer_processes_continue_what_more_began_and_say_so(tmp_path, two):
    write_spec(tmp_path, ODD)
    assert interrupted(tmp_path, "0", lambda launcher, ranks: os.kill(launcher, signal.SIGTERM))[0] == 143
    done = afno(*RUN, "--jobs", "1", root=tmp_path)
    assert "on another machine (devices 2, now 1" in done.stderr
    assert_same_stages(two[0], tmp_path)


def test_a_mistake_is_told_once(tmp_path):
    write_spec(tmp_path, SMALL.replace("optimizer: adamw", "optimizer: adamv"))
    done = afno(
        "pretrain", "small", "--row", "afno", "--device", "cpu", "--devices", "2", "--json", root=tmp_path, expect=2
    )
    assert done.stderr.count("adamv") == 1
    assert done.stdout.count("adamv") == 1


def test_processes_that_are_not_as_many_as_devices_are_refused(tmp_path):
    write_spec(tmp_path)
    done = afno(*TWO, "--nodes", "2", root=tmp_path, expect=2)
    assert "start the command on every node" in done.stderr
    torchrun = {
        **os.environ,
        "RANK": "0",
        "WORLD_SIZE": "3",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "1",
    }
    done = afno(*TWO, root=tmp_path, expect=2, env=torchrun)
    assert "ask for 2 processes, 3 were started" in done.stderr


SAY = "import os, sys, time, signal; rank = int(os.environ['RANK']); "


@pytest.mark.parametrize(
    ("script", "code", "said"),
    [
        ("print('worker', rank, file=sys.stderr)", 0, "worker 0\n"),
        ("sys.exit(4 * (rank == 0))", 4, ""),
        ("print('bad', file=sys.stderr); sys.exit(2)", 2, "bad\n"),
        ("time.sleep(30 * (rank == 0)); print('image', rank, file=sys.stderr); sys.exit(3)", 3, "image 1\n"),
        ("rank or (signal.signal(15, signal.SIG_IGN), time.sleep(30)); time.sleep(.2); sys.exit(3)", 3, ""),
        ("rank or (time.sleep(1), print('saved', file=sys.stderr)); sys.exit(143)", 143, "saved\n"),
        (
            "rank and os.kill(os.getpid(), 9)",
            1,
            "process 1 of 0 to 1 was killed by signal 9; the same command continues\n",
        ),
        *(
            (f"signal.signal(2, signal.SIG_DFL); rank or os.kill(os.getppid(), {n}); time.sleep(30)", code, "")
            for n, code in ((2, 130), (10, 143), (15, 143))
        ),
    ],
)
def test_the_launcher_ends_with_the_first_failure_and_leaves_nobody(monkeypatch, capfd, script, code, said):
    monkeypatch.setattr(launch, "GRACE_S", 0.3)
    monkeypatch.setattr(launch, "COMMAND", ("-c", SAY + script))
    assert (launch.launch([], 2, os.environ), capfd.readouterr().err) == (code, said)


@pytest.mark.parametrize("first", [0, 1])
def test_a_process_that_noticed_another_ones_end_before_the_launcher_did_does_not_hide_its_code(monkeypatch, first):
    monkeypatch.setattr(
        launch, "COMMAND", ("-c", f"{SAY}time.sleep(rank != {first}); sys.exit(1 if rank == {first} else 7)")
    )
    assert launch.launch([], 2, os.environ) == 7

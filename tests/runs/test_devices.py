"""Which device a command takes, as in containers, under WSL 2 and ROCm, and under schedulers; simulated."""

import os
import sys

import pytest
import torch

from afno_repro import host
from afno_repro.commands import arguments as given
from afno_repro.errors import ConfigError, DataError
from afno_repro.memory import available_bytes
from afno_repro.runs import devices, launch, machine, workers
from afno_repro.runs.machine import Asked, find_machine
from afno_repro.training import engine, loop
from tests.command import afno
from tests.machine import machine_at
from tests.specs import write_spec
from tests.training.test_resume import config_of, silent, train

pytestmark = pytest.mark.fast


@pytest.fixture
def computer(tmp_path, monkeypatch):
    """A machine with device files, on which torch sees some GPUs, and no more cores than its cgroup gives it."""

    def build(*files, gpus=0):
        dev = tmp_path / "dev"
        dev.mkdir()
        for name in ("null", "nvidiactl", "nvidia-uvm", *files):
            (dev / name).touch()
        monkeypatch.setattr(devices, "DEV", dev)
        monkeypatch.setattr(machine, "code_version", dict)  # reads all of the source
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(devices, "device_name", lambda device: f"a GPU at {device}")
        return lambda *asked, **more: find_machine(Asked(*asked, **more), tmp_path, tmp_path / "runs")

    return build


@pytest.mark.parametrize("file", ["nvidia0", "nvidia3", "nvidia12", "dxg", "kfd"])
def test_a_gpu_is_found_by_any_of_its_files_in_a_container_under_wsl_and_rocm(computer, file):
    find = computer(file, gpus=1)
    assert find().device == "cuda"
    assert find("cpu").device == "cpu"
    assert "a GPU at cuda" in devices.told(find())


def test_torch_is_not_asked_where_there_is_no_gpu(computer, monkeypatch):
    find = computer(gpus=1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: pytest.fail("torch was asked"))
    assert find().device == "cpu"


@pytest.mark.parametrize(
    ("file", "asked", "quiet", "terminal", "said"),
    [
        ("nvidia0", "auto", False, True, "looking for GPUs\n"),
        ("nvidia0", "cuda:0", False, True, "looking for GPUs\n"),
        ("nvidia0", "auto", True, True, ""),
        ("nvidia0", "auto", False, False, ""),
        ("nvidia0", "cpu", False, True, ""),
        ("zero", "auto", False, True, ""),
    ],
)
def test_a_terminal_is_told_that_gpus_are_looked_for_before_torch_is_asked(
    computer, tmp_path, monkeypatch, capsys, file, asked, quiet, terminal, said
):
    computer(file)
    heard = []

    def find(*arguments):
        heard.append(capsys.readouterr().err)
        return machine_at(tmp_path)

    monkeypatch.setattr(machine, "find_machine", find)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    given.machine(Asked(asked), tmp_path, None, None, quiet)
    assert heard == [said]


def test_a_gpu_that_torch_cannot_use_is_told(computer):
    find = computer("nvidia3", gpus=0)
    assert find().device == "cpu"
    assert "nvidia3 unused" in devices.told(find())
    with pytest.raises(DataError, match=r"cannot use .*nvidia3"):
        find("cuda")


def test_one_of_several_visible_gpus_may_be_named(computer):
    find = computer("nvidia4", "nvidia5", gpus=2)
    assert find("cuda:1").device == "cuda:1"
    with pytest.raises(DataError, match="sees 2 CUDA devices"):
        find("cuda:2")
    for wrong in ("cuda:", "cuda:x", "gpu", "cuda:-1"):
        with pytest.raises(ConfigError, match="must be auto, cpu, cuda"):
            find(wrong)
    with pytest.raises(ConfigError, match="must be cuda where 2 devices"):
        find("cuda:1", 2)


def test_a_process_that_srun_gave_its_own_gpu_uses_that_and_others_are_refused(computer):
    find = computer("nvidia2", gpus=1)
    srun = {"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "2"}
    assert find("auto", 4, placed=launch.placed(srun)).devices == 4
    assert not launch.placed(srun | dict.fromkeys(launch.TORCHRUN, "1"))
    assert not launch.placed(srun | {"SLURM_STEP_NUM_TASKS": "1"})  # alone in its step, it has all that the job has
    with pytest.raises(DataError, match="sees 1 CUDA devices"):
        find("auto", 4, placed=launch.placed({}))
    assert [engine.own_gpu(2, visible) for visible in (1, 4)] == [0, 2]
    with pytest.raises(DataError, match="process 2 of this machine sees 2"):
        engine.own_gpu(2, 2)


def test_a_command_on_the_cpu_shows_itself_no_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    given.machine(Asked("cpu"), tmp_path, None, None)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


def test_commands_pass_on_which_gpus_are_visible(tmp_path, computer, monkeypatch):
    computer("nvidia3", "nvidia5", gpus=2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert given.machine(Asked(), tmp_path, None, None).gpus == ("3", "5")


@pytest.mark.parametrize(
    ("file", "variable", "gpus"),
    [("kfd", "HIP_VISIBLE_DEVICES", ("4", "5")), ("nvidia0", "CUDA_VISIBLE_DEVICES", ("0", "1"))],
)
def test_rocm_s_own_variable_is_heeded_before_cuda_s(tmp_path, computer, monkeypatch, file, variable, gpus):
    """As HIP does, on its own GPUs: what a process is shown stands in the variable that counts."""
    computer(file, gpus=2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "4,5")
    assert given.machine(Asked(), tmp_path, None, None).gpus == gpus
    before = dict(os.environ)
    with workers._seeing(gpus[1]):
        assert dict(os.environ) == before | {variable: gpus[1]}
    assert dict(os.environ) == before


def test_each_part_of_a_gpu_can_have_runs_though_a_process_sees_one(tmp_path, computer, monkeypatch):
    computer("nvidia0", gpus=1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-a,MIG-b")
    assert given.machine(Asked(), tmp_path, None, None).gpus == ("MIG-a", "MIG-b")


def test_a_run_on_the_cpu_asks_for_no_cuda_context(tmp_path, monkeypatch):
    """On a machine whose torch could open one, as PyTorch's own optimisers do where they see a GPU."""
    monkeypatch.setattr(torch.optim.Optimizer, "_accelerator_graph_capture_health_check", lambda self: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: pytest.fail("a CUDA context was opened"))
    train(config_of(tmp_path), machine_at(tmp_path, checkpoint_every_s=0.0), tmp_path / "run", silent)
    assert loop.checkpoint.saved(tmp_path / "run/checkpoints")


def test_the_device_is_told_before_the_first_run(tmp_path):
    write_spec(tmp_path)
    first = afno("run", "small", "--scale", "smoke", "--row", "gfn", "--device", "cpu", root=tmp_path).stderr
    assert first.startswith("small at smoke scale on the CPU, ")


V2, V1 = "0::/{path}\n", "9:name=systemd:/{path}\n4:cpu,cpuacct:/{path}\n0::/\n"
FOLDERS = {V2: "sys/fs/cgroup", V1: "sys/fs/cgroup/cpu"}


def limit(version, folder, cpus_allowed):
    """A cgroup's files: so many CPUs of time, or any."""
    folder.mkdir(parents=True, exist_ok=True)
    if version == V2:
        (folder / "cpu.max").write_text(f"{int(cpus_allowed * 100_000) if cpus_allowed else 'max'} 100000\n")
    else:
        (folder / "cpu.cfs_quota_us").write_text(f"{int(cpus_allowed * 100_000) if cpus_allowed else -1}\n")
        (folder / "cpu.cfs_period_us").write_text("100000\n")


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A machine of 128 cores, and its root."""
    (tmp_path / "proc/self").mkdir(parents=True)
    monkeypatch.setattr(host, "SYSTEM", tmp_path)
    monkeypatch.setattr(host.os, "sched_getaffinity", lambda pid: set(range(128)))
    return tmp_path


@pytest.mark.parametrize("version", [V2, V1])
@pytest.mark.parametrize("inside", [True, False])  # of the container, the group that /proc names is not to be seen
@pytest.mark.parametrize(("allowed", "expected"), [(4, 4), (1.5, 2), (0.2, 1), (None, 128), (500, 128)])
def test_a_cpu_quota_bounds_the_cores(system, version, inside, allowed, expected):
    (system / "proc/self/cgroup").write_text(version.format(path="docker/0123"))
    limit(version, system / FOLDERS[version] / ("" if inside else "docker/0123"), allowed)
    assert host.cores() == expected


@pytest.mark.parametrize("version", [V2, V1])
def test_the_tightest_group_above_counts(system, version):
    (system / "proc/self/cgroup").write_text(version.format(path="a/b"))
    for path, allowed in (("", None), ("a", 3), ("a/b", 7)):
        limit(version, system / FOLDERS[version] / path, allowed)
    assert host.cores() == 3


def test_affinity_and_a_broken_quota_count_too(system, monkeypatch):
    monkeypatch.setattr(host.os, "sched_getaffinity", lambda pid: {4, 5})
    (system / "proc/self/cgroup").write_text(V2.format(path=""))
    (system / "sys/fs/cgroup").mkdir(parents=True)
    (system / "sys/fs/cgroup/cpu.max").write_text("much\n")
    assert host.cores() == 2


@pytest.mark.parametrize("version", [V2, V1])
@pytest.mark.parametrize(("limit", "held", "left"), [(8, 3, 6), (3, 5, 0), (None, 3, 60), (200, 3, 60)])
def test_a_container_s_limit_bounds_the_memory_and_runs_side_by_side_share_it(system, version, limit, held, left):
    """Of what is held, one GiB only caches files."""
    (system / "proc/self/cgroup").write_text(version.format(path="docker/0123").replace("cpu,cpuacct", "memory"))
    (system / "proc/meminfo").write_text(f"MemTotal:  {64 * 2**20} kB\nMemAvailable: {60 * 2**20} kB\nHugePages: 0\n")
    folder = system / FOLDERS[version].replace("/cpu", "/memory") / "docker/0123"
    folder.mkdir(parents=True)
    names, most = ("memory.max", "memory.current", ""), "max\n"
    if version == V1:
        names, most = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"), f"{2**63 - 4096}\n"
    (folder / names[0]).write_text(f"{limit * 2**30}\n" if limit else most)
    (folder / names[1]).write_text(f"{held * 2**30}\n")
    cached = "".join(f"{names[2]}{kind}_file {2**29}\n" for kind in ("inactive", "active"))
    (folder / "memory.stat").write_text(f"anon 5\n{cached}")
    assert available_bytes(torch.device("cpu")) == left * 2**30
    assert available_bytes(torch.device("cpu"), 8) == min(left, min(limit or 64, 64) // 8) * 2**30
    (system / "proc/meminfo").unlink()
    assert available_bytes(torch.device("cpu")) is None


def test_jobs_and_threads_follow_from_the_quota(system, computer):
    (system / "proc/self/cgroup").write_text(V2.format(path=""))
    limit(V2, system / "sys/fs/cgroup", 4)
    machine = computer()("cpu")
    assert (machine.jobs, machine.threads) == (4, 1)


@pytest.mark.parametrize(
    ("gpus", "asked", "workers"),
    [
        (0, {}, 0),
        (1, {}, 128),
        (8, {}, 16),
        (8, {"devices": 8}, 16),
        (1, {"devices": 4, "placed": True}, 128),  # srun gives each process cores of its own, too
        (8, {"devices": 4, "placed": True}, 128),
        (8, {"placed": True}, 16),  # of a worker beside others, whose runs share them
        (8, {"workers": 3}, 3),
        (200, {}, 1),
    ],
)
def test_on_a_gpu_its_share_of_the_cores_loads_images(system, computer, gpus, asked, workers):
    assert computer("nvidia0", gpus=gpus)(**asked).num_workers == workers

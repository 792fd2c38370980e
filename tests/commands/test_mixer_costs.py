import csv

import pytest
import torch

from afno_repro.commands.mixer_costs import Asked, profile_mixers
from afno_repro.errors import DataError
from afno_repro.spec.places import Places
from tests.command import afno, answer
from tests.specs import ROOT

KEYS = [
    "mixer",
    "backbone",
    "head",
    "resolution",
    "tokens",
    "batch",
    "precision",
    "mode",
    "device",
    "params",
    "mixer_params",
    "gflops",
]
KEYS += [
    "mixer_gflops",
    "gflops_full",
    "mixer_gflops_full",
    "latency_s",
    "latency_spread_s",
    "images_per_s",
    "peak_memory_mib",
    "state",
]


def profiles(**changes):
    asked = {
        "backbone": "segformer-b3",
        "mixers": ("afno",),
        "resolutions": ("64",),
        "batch": 1,
        "precision": "float32",
        "mode": "forward",
    }
    return profile_mixers(
        Places(ROOT, ROOT / "runs"), Asked(**{**asked, "latency": False, "changes": (), **changes}), "cpu"
    )


def test_json_has_the_documented_keys_and_counts_without_latency():
    (found,) = answer("profile", "--mixer", "afno", "--res", "1024", "--no-latency", "--device", "cpu", root=ROOT)
    assert list(found) == KEYS
    assert (found["tokens"], found["resolution"], found["state"]) == (65536, 1024, "measured")
    assert found["gflops"] == pytest.approx(440.021, abs=1e-3)
    assert found["latency_s"] is None
    assert found["peak_memory_mib"] is None


def test_what_is_profiled_and_where_is_said_first_also_where_there_is_no_terminal():
    arguments = ("profile", "--mixer", "afno", "--res", "256", "--no-latency", "--device", "cpu")
    said, quiet = (afno(*arguments, *more, root=ROOT).stderr for more in ((), ("--quiet",)))
    assert said.startswith("afno at 256 pixels on the CPU")
    assert quiet == ""


def test_all_are_the_five_mixers_of_table_4():
    found = profiles(mixers=("all",), resolutions=("64", "128x64"))
    assert [p.mixer for p in found[::2]] == ["self_attention", "efficient_self_attention", "long_short", "gfn", "afno"]
    assert {(p.resolution, p.tokens) for p in found} == {(64, 256), ("128x64", 512)}


def test_a_mixers_options_come_from_the_first_table_and_can_be_changed():
    base, changed = profiles()[0], profiles(changes=("model.mixer.num_blocks=1",))[0]
    assert changed.mixer_params > 2 * base.mixer_params
    assert profiles(backbone="vit-xs", mixers=("fno",))[0].mixer_params == 5 * 392 * 64 * 64 * 2


def test_every_size_is_one_kind_of_network_and_says_which():
    """At a size alike but for its blocks, B3 has B2's head: what they differ by is twelve blocks of 320 channels."""
    b2, b3 = (profiles(backbone=f"segformer-b{i}", mixers=("efficient_self_attention",))[0] for i in (2, 3))
    assert (b2.head, b3.head) == ("segformer", "segformer")
    attention = 4 * 320 * 320 + 4 * 320 + (4 * 320 * 320 + 320) + 2 * 320  # q, kv, output; reduction by 2 and its norm
    channels = 2 * 4 * 320 * 320 + 5 * 320 + 10 * 4 * 320  # two layers and a depthwise 3 x 3 convolution
    assert b3.params - b2.params == 12 * (attention + channels + 4 * 320)
    sizes = [profiles(backbone=f"segformer-b{i}", resolutions=("512",))[0] for i in range(4)]
    assert {p.head for p in sizes} == {"segformer"}
    assert sorted(sizes, key=lambda p: p.gflops) == sizes
    assert profiles(changes=("model.head.num_classes=3",))[0].params < profiles()[0].params


def test_the_head_is_named_where_costs_are_shown():
    shown = afno(
        "profile",
        "--mixer",
        "gfn",
        "--res",
        "64",
        "--backbone",
        "segformer-b0",
        "--no-latency",
        "--device",
        "cpu",
        root=ROOT,
    ).stdout
    assert "with the head" in " ".join(shown.split())


@pytest.mark.parametrize("mode", ["forward", "train"])
def test_latency_and_memory_are_measured(mode):
    (found,) = profiles(backbone="segformer-b0", mixers=("gfn",), mode=mode, latency=True, batch=2)
    assert found.latency_s > 0
    assert found.images_per_s == pytest.approx(2 / found.latency_s)
    assert found.peak_memory_mib is None or found.peak_memory_mib >= 0


def test_what_cannot_fit_is_a_state_and_is_not_tried(monkeypatch):
    from afno_repro.commands import mixer_costs as profile

    monkeypatch.setattr(profile, "available_bytes", lambda device: 1000)
    monkeypatch.setattr(profile, "measure", None)
    (found,) = profiles(latency=True)
    assert (found.state, found.latency_s) == ("out_of_memory", None)
    assert found.gflops > 0
    monkeypatch.setattr(profile, "held_by_others_bytes", lambda device: 1000)  # without them it could not fit either
    assert profiles(latency=True)[0].state == "out_of_memory"

    def measure(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(profile, "measure", measure)
    monkeypatch.setattr(profile, "held_by_others_bytes", lambda device: 3 * 2**30)
    with pytest.raises(DataError, match=r"other processes hold 3\.0 GiB"):
        profiles(latency=True)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--mixer", "afon"], "Did you mean 'afno'?"),
        (["--mixer", "fno"], "no table pairs it with segformer-b3"),
        (["--mixer", "afno", "--backbone", "segformer-b9"], "backbones: "),
        (["--mixer", "afno", "--res", "100"], "needs multiples of 32 pixels"),
        (["--mixer", "afno", "--res", "0x64"], "HEIGHTxWIDTH"),
        (["--mixer", "afno", "--set", "mixer.num_blocks=7"], "num_blocks: afno: must divide"),
        (["--mixer", "gfn", "--set", "mixer.num_blocks=7"], "gfn has no option 'num_blocks'"),
        (["--mixer", "afno", "--precision", "fp8"], "float32, tf32 or bf16"),
        (["--mixer", "afno", "--mode", "backward"], "forward or train"),
        ([], "one of them"),
        (["table2", "--mixer", "afno"], "one of them"),
        (["table22"], "there is no spec 'table22'"),
        (["table4", "--res", "64", "--batch", "1", "--out", "here"], "--res, --batch, --out: belongs to --mixer"),
        (["tables", "--precision", "bf16", "--mode", "train"], "--precision, --mode: belongs to --mixer"),
        (["table4", "--backbone", "vit-b"], "--backbone: belongs to --mixer"),
        (["--mixer", "afno", "--scale", "tiny", "--row", "afno"], "--scale, --row: belongs to a spec"),
    ],
    ids=" ".join,
)
def test_a_mistake_ends_with_2(arguments, says):
    assert says in afno("profile", *arguments, "--no-latency", "--device", "cpu", root=ROOT, expect=2).stderr


def test_what_is_saved_and_its_exponents(tmp_path):
    from afno_repro.visualize.curves import fitted_exponent

    afno(
        "profile",
        "--mixer",
        "self_attention",
        "--mixer",
        "afno",
        "--res",
        "256",
        "--res",
        "1024",
        "--no-latency",
        "--out",
        str(tmp_path),
        root=ROOT,
    )
    files = {"profile.csv", "profile.md", *(f"profile.{ending}" for ending in ("png", "svg", "pdf"))}
    assert {p.name for p in tmp_path.iterdir()} == files
    rows = list(csv.DictReader((tmp_path / "profile.csv").open()))
    exponents = {}
    for mixer in ("self_attention", "afno"):
        mine = [r for r in rows if r["mixer"] == mixer]
        exponents[mixer] = fitted_exponent(
            [float(r["tokens"]) for r in mine], [float(r["mixer_gflops_full"]) for r in mine]
        )
    assert 1.5 < exponents["self_attention"] <= 2
    assert 0.95 < exponents["afno"] < 1.1


def test_a_fitted_exponent_is_the_power():
    from afno_repro.visualize.curves import fitted_exponent

    tokens = [16, 64, 1024]
    assert fitted_exponent(tokens, [3 * t**1.7 for t in tokens]) == pytest.approx(1.7)

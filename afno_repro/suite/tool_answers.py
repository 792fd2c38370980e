"""What the commands beside the tables answer: profile, convert, visualize."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from afno_repro.config import Machine
from afno_repro.suite.answers import Answer, some
from afno_repro.suite.places import Places, sound_specs
from afno_repro.suite.terminal import print_grid, say


def profiled(places: Places, asked: Any, device: str, out: Path | None) -> Answer:
    """Mixers profiled without a spec; saved only where a folder is named."""
    from afno_repro.suite.profile import Asked, profile_mixers, save_profiles

    profiles = profile_mixers(places, Asked(*asked), device)
    files = save_profiles(profiles, out) if out else []

    def show() -> None:
        lines = []
        for p in profiles:
            latency = p.state.replace("_", " ") if p.state != "measured" else _seconds(p.latency_s, p.latency_spread_s)
            memory = "" if p.peak_memory_mib is None else f"{p.peak_memory_mib:.0f}"
            counts = [f"{p.params / 1e6:.2f}", f"{p.mixer_params / 1e6:.2f}", *(f"{g:.1f}" for g in (p.gflops, p.mixer_gflops, p.gflops_full))]
            lines.append([p.mixer, str(p.resolution), *counts, latency, "" if p.images_per_s is None else f"{p.images_per_s:.2f}", memory])
        header = ["Mixer", "Pixels", "Params (M)", "Mixer (M)", "GFLOPs", "Mixer GFLOPs", "Full GFLOPs", "Latency (s)", "Images/s", "Peak (MiB)"]
        print_grid(f"{profiles[0].backbone} on {profiles[0].device}, {profiles[0].mode}, batch {profiles[0].batch}", header, lines, whole=1)
        say("GFLOPs are multiply-accumulates in 1e9, counted as in Table 4; full GFLOPs are all floating-point operations")
        for file in files:
            say(file)

    return Answer([asdict(p) for p in profiles], show)


def _seconds(value: float | None, spread: float | None) -> str:
    return "" if value is None else f"{value:.3g}" + ("" if spread is None else f" ± {spread:.1g}")


def converted(file: Path, format_name: str, out: Path) -> Answer:
    """A checkpoint written in our names, and which of its tensors found a place."""
    from afno_repro.weights import convert, write_weights

    found = convert(file, format_name)
    write_weights(found, out)
    lists = {key: getattr(found, key) for key in ("matched", "missing", "unexpected", "resized")}
    value = {"file": str(file), "format": format_name, "out": str(out), "sha256": found.sha256, "model": asdict(found.model), "image_size": found.learned_at}

    def show() -> None:
        for key, names in lists.items():
            say(f"{key}: {len(names)}" + (f" ({some(names)})" if names and key != "matched" else ""))
        say(f"model: {found.model.backbone.name} {dict(found.model.backbone.options)}, made for {found.learned_at} pixels")
        say(f"sha256 of {file}: {found.sha256}\n{out}")

    return Answer({**value, **lists}, show)


def exhibited(places: Places, name: str, asked: Any, machine: Machine, quiet: bool) -> Answer:
    """Pictures of other images or of another network, and where they are."""
    from afno_repro.suite.exhibit import Exhibit, exhibit
    from afno_repro.suite.terminal import show_for

    files = [str(file) for spec in sound_specs(places, name) for file in exhibit(spec, Exhibit(*asked), machine, show_for(quiet).note)]

    def show() -> None:
        for file in files:
            say(file)

    return Answer({"files": files}, show)

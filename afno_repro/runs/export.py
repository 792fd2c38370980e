"""`afno export RUN`: a finished run's network as an ONNX file, which onnxruntime has run before it is written.

The batch is free; the image size is the run's. What PyTorch's exporter notes about its own work is left out: it
names folders of this machine.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import onnxscript as onnxscript  # PyTorch's exporter writes with it
import torch
from torch import nn

from afno_repro.config import canonical_json
from afno_repro.errors import AfnoError, ConfigError, DataError, Problem
from afno_repro.escape import plain
from afno_repro.files import write_atomic
from afno_repro.models import build_model
from afno_repro.runs.executors import written_weights
from afno_repro.runs.record import Record, read_record
from afno_repro.runs.store import WEIGHTS, Store
from afno_repro.spec.resolve import TRAINED
from afno_repro.tasks.inputs import IMAGENET_MEAN, IMAGENET_STD
from afno_repro.weights.load import load_weights

TOLERANCE = 1e-4  # of the largest value that the network gives
IMAGES, PREDICTION = "images", "prediction"
PREPARED = {  # how an image enters the network, by the task's `input`, or by the task where it has none
    "inpainting": "RGB in [0, 1] less the mean colour of its visible pixels, hidden pixels 0; that mean is added to "
    "the prediction",
    "image_mean": "RGB in [0, 1] less its own mean colour",
    "imagenet": f"RGB in [0, 1] less {IMAGENET_MEAN}, then divided by {IMAGENET_STD}",
}


@dataclass(frozen=True)
class Exported:
    """What was written; `difference` is the largest from the network, as a share of the network's largest value."""

    run: str
    out: str
    bytes: int
    opset: int
    inputs: dict[str, list[str | int]]  # shapes by name; a size that is free has a name
    outputs: dict[str, list[str | int]]
    difference: float
    metadata: dict[str, str]


def export_run(named: str, out: Path, store: Store) -> Exported:
    """Write the network of the run that a folder, an id or a digest names.

    Raises ConfigError (no .onnx file, a network that the exporter does not take), DataError (no such finished run),
    StorageError (weights that are not those of the record, a file that cannot be written) or AfnoError (onnxruntime
    finds other numbers).
    """
    if out.suffix != ".onnx":
        raise ConfigError(f"--out {out}: must end in .onnx")
    directory, record = find_run(named, store)
    net = network(directory, record)
    model = translated(net, record)
    data: bytes = model.SerializeToString()
    difference, session = compared(net, data, record.config.data.image_size)
    if not difference <= TOLERANCE:  # nor is NaN
        message = (
            f"{record.run_id}: onnxruntime's numbers differ from the network's by {difference:.2g} of its largest "
            f"value, above {TOLERANCE:g}"
        )
        raise AfnoError(
            f"{message}\n  nothing was written; other versions of torch, onnx, onnxscript and onnxruntime may agree"
        )
    write_atomic(out, data)
    opset = next(each.version for each in model.opset_import if each.domain == "")
    inputs, outputs = (
        {each.name: each.shape for each in found} for found in (session.get_inputs(), session.get_outputs())
    )
    return Exported(
        record.run_id,
        str(out),
        len(data),
        opset,
        inputs,
        outputs,
        difference,
        {each.key: each.value for each in model.metadata_props},
    )


def find_run(named: str, store: Store) -> tuple[Path, Record]:
    """The folder and the record of a finished training.

    Raises DataError where there is none, ConfigError for a run without a network.
    """
    ending = re.search(r"(?:^|-)([0-9a-f]{12})$", named)
    directory = Path(named) if os.path.isdir(named) else store.find(ending[1]) if ending else None
    if directory is None:
        hint = "name a run's folder, its id or its digest, which `afno run SPEC --dry-run --json` lists"
        raise DataError(f"there is no run {named!r}, neither as a folder nor in {store.root}\n  {hint}")
    try:
        record = read_record(directory / "record.json")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise DataError(
            f"{directory}: holds no finished run (record.json: {why})\n  the command that began it finishes it"
        ) from error
    if record.config.kind not in TRAINED:
        raise ConfigError(
            Problem(
                f"a {record.config.kind} run has no network",
                (),
                f"runs that have one: {', '.join(TRAINED)}",
                str(directory),
            )
        )
    if record.outcome != "ok":
        raise DataError(
            f"{directory}: has no weights: its outcome is {record.outcome}\n  docs/troubleshooting.md says what to do"
        )
    return directory, record


def network(directory: Path, record: Record) -> nn.Module:
    """The run's network, evaluating. Raises StorageError when the weights are not those that the record names."""
    config = record.config
    assert config.model is not None
    net = build_model(config.model, config.data.image_size)
    load_weights(net, written_weights(directory, record))
    return net.eval()


def translated(net: nn.Module, record: Record) -> onnx.ModelProto:
    """The network in ONNX's operations, for any number of images at a time.

    Raises ConfigError where the exporter does not know them.
    """
    size = record.config.data.image_size
    try:
        program = torch.onnx.export(
            net,
            (torch.zeros(2, 3, size, size),),
            dynamo=True,
            verbose=False,
            dynamic_shapes=({0: "batch"},),
            input_names=[IMAGES],
            output_names=[PREDICTION],
        )
    except torch.onnx.OnnxExporterError as error:
        assert record.config.model is not None
        part = record.config.model.mixer or record.config.model.backbone
        hint = f"all mixers of this package can be; without ONNX the network is the {WEIGHTS} in the run's folder"
        raise ConfigError(
            Problem(f"{part.name} cannot be exported ({reason(error)})", (), hint, record.run_id)
        ) from error
    assert program is not None
    model = program.model_proto
    graph = model.graph
    for each in (graph, *graph.node, *graph.value_info, *graph.initializer, *graph.input, *graph.output):
        each.ClearField("metadata_props")
    onnx.helper.set_model_props(model, metadata(record))
    return model


def reason(error: Exception) -> str:
    """What an exporter's error says in one line: the operation of the step that failed, where it names one."""
    text = plain(str(error.__cause__ or error))
    return (
        f"PyTorch's ONNX exporter stops at {found[1]}"
        if (found := re.search(r"target=torch\.ops\.([\w.]+)", text))
        else text[:200]
    )


def metadata(record: Record) -> dict[str, str]:
    """What the file says of itself: which run it is, and how images are prepared for it.

    `config` is the text whose SHA-256 begins with the digest.
    """
    config = record.config
    assert config.model is not None
    return {
        "run": record.run_id,
        "digest": record.digest,
        "task": config.task.name,
        "backbone": config.model.backbone.name,
        "mixer": config.model.mixer.name if config.model.mixer else "none",
        "image_size": str(config.data.image_size),
        "input": PREPARED.get(key := config.task.options.get("input", config.task.name), key),
        "config": canonical_json(config),
    }


def compared(net: nn.Module, data: bytes, image_size: int) -> tuple[float, Any]:
    """How far the file's predictions are from the network's, and onnxruntime's session.

    The first is the largest difference as a share of the largest value,
    on random images of `image_size` pixels a side, one and two at a time; NaN where one of them is not finite.
    Raises AfnoError when onnxruntime cannot run the file.
    """
    rng = torch.Generator().manual_seed(0)
    images = [torch.randn(batch, 3, image_size, image_size, generator=rng) for batch in (1, 2)]
    with torch.no_grad():
        expected = [net(each) for each in images]
    try:
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        found = [torch.from_numpy(session.run([PREDICTION], {IMAGES: each.numpy()})[0]) for each in images]
    except Exception as error:  # onnxruntime's own have no class in common
        hint = "nothing was written; a newer one may run it: pip install --upgrade onnxruntime"
        raise AfnoError(
            f"onnxruntime {onnxruntime.__version__} cannot run the file ({plain(str(error))[:300]})\n  {hint}"
        ) from error
    largest = [((ours - theirs).abs().max(), ours.abs().max()) for ours, theirs in zip(expected, found, strict=True)]
    return torch.stack([off / of if off != 0 else off for off, of in largest]).max().item(), session  # NaN stays NaN

"""The lines of a training's log as scalars for TensorBoard.

The file is written anew with every line of the log, so that a run that was interrupted has each step once. The log
knows no times of day, so neither do the events: TensorBoard's axis is the step.
"""

import io
from collections.abc import Iterable, Mapping
from typing import Any

FOLDER, FILE = "tensorboard", "events.out.tfevents.0.afno"
VERSION = "brain.Event:2"  # what an events file begins with
TRAINING = ("lr", "loss")  # of a log's columns, besides alive_1 and so on; the others are metrics of the validation


def events(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """An events file with the scalars of a log's lines."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    file = io.BytesIO()
    writer = RecordWriter(file)
    writer.write(Event(file_version=VERSION).SerializeToString())
    for row in rows:
        values = [
            Summary.Value(tag=f"{_part(key)}/{key}", simple_value=float(value))
            for key, value in row.items()
            if key not in ("epoch", "step") and value != ""
        ]
        writer.write(Event(step=row["step"], summary=Summary(value=values)).SerializeToString())
    return file.getvalue()


def _part(key: str) -> str:
    return "training" if key in TRAINING or key.startswith("alive_") else "validation"

"""Where four tags on five people are, and what the people do."""

from __future__ import annotations

import logging
import zipfile
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import torch

from node_cli.datasets.download import RemoteFile, fetch
from node_cli.datasets.series.averaging import averaged
from node_cli.datasets.series.raw import RawSeries, Series
from node_cli.datasets.series.source import series_dataset
from node_cli.ode.checks import require_at_least

log = logging.getLogger(__name__)

# The hash is from users of the file; UCI publishes none.
ARCHIVE = RemoteFile(
    "localization+data+for+person+activity.zip", "6660124b4d1fd98963c56a6804bbb0ca0c5ee12edc9b772c8a867148af20d0da"
)
MEMBER = "ConfLongDemo_JSI.txt"
TAGS = {
    "010-000-024-033": "left_ankle",
    "010-000-030-096": "right_ankle",
    "020-000-033-111": "chest",
    "020-000-032-221": "belt",
}
CHANNELS = tuple(f"{tag}_{axis}" for tag in TAGS.values() for axis in "xyz")
CLASSES = {  # of Rubanova et al.: the activities of each
    "walking": ("walking",),
    "falling": ("falling",),
    "lying": ("lying", "lying down"),
    "sitting": ("sitting", "sitting down"),
    "standing up": (
        *("standing up from lying", "standing up from sitting", "standing up from sit on grnd"),
        "standing up from sitting on the ground",
    ),
    "on all fours": ("on all fours",),
    "sitting on the ground": ("sitting on the ground",),
}
CLASS_OF = {activity: number for number, some in enumerate(CLASSES.values()) for activity in some}
TICKS, STEPS = 10_000_000, 100  # of a second: as recorded, and as times are rounded


@series_dataset
def human_activity(data_dir: str, mirrors: list[str], num_times: int) -> RawSeries:
    """Pieces of `num_times` times of 25 recordings, 12 channels in metres; their class is what is done most in them.

    Times are seconds since the start of a piece, to a hundredth, and mostly one tag is located at each. Pieces do not
    overlap; what is left at the end of a recording is left out. All pieces of a recording go into one split.

    Args:
        data_dir: its subfolder human_activity has the file, or gets it.
        mirrors: where to download from.
        num_times: times of a piece.

    Source: Kaluža et al., An Agent-Based Approach to Care in Independent Living, 2010; UCI Machine Learning
    Repository, CC BY 4.0. Classes and steps of time: Rubanova, Chen, Duvenaud, Latent ODEs, NeurIPS 2019.

    Raises:
        ValueError: the file is damaged or a key out of range.
        FileNotFoundError: it is neither there nor to be had.
    """
    require_at_least("num_times", num_times, 2)
    path = fetch(ARCHIVE, Path(data_dir) / "human_activity", mirrors)
    series: list[Series] = []
    classes: list[int] = []
    for period, (name, rows) in enumerate(groupby(_rows(path), key=lambda row: row[0])):
        located = list(rows)
        start = int(located[0][2])
        steps = [round((int(row[2]) - start) * STEPS / TICKS) for row in located]
        tags = [list(TAGS).index(row[1]) for row in located]
        measured = [
            (step, 3 * tag + axis, float(row[4 + axis]))
            for step, tag, row in zip(steps, tags, located, strict=True)
            for axis in range(3)
        ]
        times, values = averaged(measured, len(CHANNELS))
        done = dict(zip(steps, (CLASS_OF[row[7]] for row in located), strict=True))
        for number in range(len(times) // num_times):
            piece = slice(number * num_times, (number + 1) * num_times)
            since = (times[piece] - times[piece][0]) / STEPS
            series.append(Series(f"{name}/{number + 1}", since, values[piece], period=period))
            classes.append(Counter(done[int(step)] for step in times[piece].tolist()).most_common(1)[0][0])
    if not series:
        raise ValueError(f"num_times must be at most the times of a recording, got {num_times}")
    names = tuple(CLASSES)
    return RawSeries(
        tuple(series),
        CHANNELS,
        time_unit="second",
        channel_units=("m",) * len(CHANNELS),
        targets=torch.tensor(classes),
        class_names=names,
    )


def _rows(path: Path) -> Iterator[list[str]]:
    """Recording, tag, ticks, date, three coordinates and activity of each line."""
    with zipfile.ZipFile(path) as archive, archive.open(MEMBER) as stream:
        for number, line in enumerate(stream, start=1):
            row = line.decode("utf-8").strip().split(",")
            if len(row) != 8 or row[1] not in TAGS or row[7] not in CLASS_OF:
                raise ValueError(f"{path}: {MEMBER}, row {number} is no location of a tag with an activity")
            yield row

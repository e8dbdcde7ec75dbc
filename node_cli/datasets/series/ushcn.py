"""Weather at stations in the United States, sparsely observed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from node_cli.datasets.download import RemoteFile, fetch
from node_cli.datasets.series.raw import RawSeries, Series
from node_cli.datasets.series.source import series_dataset

# The hash is that of github.com/randolf-scholz/tsdm.
FILE = RemoteFile("small_chunked_sporadic.csv", "671eb8d121522e98891c84197742a6c9e9bb5015e42b328a93ebdf2cfd393ecf")
NUM_CHANNELS = 5
CHANNELS = tuple(f"Value_{k}" for k in range(NUM_CHANNELS))
HEADER = ("ID", "Time", *CHANNELS, *(f"Mask_{k}" for k in range(NUM_CHANNELS)))


@series_dataset
def ushcn(data_dir: str, mirrors: list[str]) -> RawSeries:
    """Precipitation, snowfall, snow depth, and the lowest and the highest temperature of days at some 1,100 stations.

    1,100 series of four years, at times from 0 to 200 (about 0.14 a day), of which one in twenty values was kept. The
    file does not say which channel is what, and its authors have scaled each of them over all stations.

    Args:
        data_dir: its subfolder ushcn has the file, or gets it.
        mirrors: where to download from.

    Source: De Brouwer et al., GRU-ODE-Bayes, NeurIPS 2019, from Menne, Williams, Vose, United States Historical
    Climatology Network Daily Temperature, Precipitation, and Snow Data.

    Raises:
        ValueError: the file is damaged.
        FileNotFoundError: it is neither there nor to be had.
    """
    path = fetch(FILE, Path(data_dir) / "ushcn", mirrors)
    with path.open(encoding="utf-8") as stream:
        header = tuple(stream.readline().strip().split(","))
        if header != HEADER:
            raise ValueError(f"{path}: must have the columns {', '.join(HEADER)}, and has {', '.join(header)}")
        table = torch.from_numpy(np.loadtxt(stream, delimiter=",", ndmin=2))
    stations, times, values = table[:, 0].long(), table[:, 1], table[:, 2 : 2 + NUM_CHANNELS]
    values = values.where(table[:, 2 + NUM_CHANNELS :] > 0, torch.nan)
    order = times.argsort(stable=True)
    order = order[stations[order].argsort(stable=True)]
    names, counts = stations[order].unique_consecutive(return_counts=True)
    rows = zip(names.tolist(), order.split(counts.tolist()), strict=True)
    series = tuple(Series(f"station {name}", times[some], values[some]) for name, some in rows)
    return RawSeries(series, CHANNELS, time_name="Time")

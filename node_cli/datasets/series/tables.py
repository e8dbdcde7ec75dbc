"""Small real tables that come with the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from node_cli.datasets.series.raw import RawSeries, Series
from node_cli.datasets.series.source import series_dataset

FILES = Path(__file__).parents[1] / "files"


@series_dataset
def lynx_hare() -> RawSeries:
    """Pelts of hare and lynx, in thousands, of the Hudson's Bay Company: 21 years, 1900 to 1920.

    Source: Elton and Nicholson, *The Ten-Year Cycle in Numbers of the Lynx in Canada*, J. Animal Ecology 1942.
    """
    return _table("lynx_hare", "year", "thousands")


@series_dataset
def influenza() -> RawSeries:
    """Boys in bed with influenza at a boarding school of 763: 14 days.

    Source: British Medical Journal, 4 March 1978, p. 587.
    """
    return _table("influenza", "day", "boys")


def _table(name: str, time_unit: str, unit: str) -> RawSeries:
    """A table whose first column is the time; all others have one unit."""
    path = FILES / f"{name}.csv"
    time_name, *channel_names = path.read_text("utf-8").partition("\n")[0].split(",")
    rows = torch.from_numpy(np.loadtxt(path, delimiter=",", skiprows=1))
    series = Series(name, rows[:, 0].clone(), rows[:, 1:].clone())
    units = (unit,) * len(channel_names)
    return RawSeries((series,), tuple(channel_names), time_name=time_name, time_unit=time_unit, channel_units=units)

"""Tracks of storms that come with the package."""

from __future__ import annotations

import torch

from node_cli.datasets.npz_file import read_arrays
from node_cli.datasets.series.raw import RawSeries, Series
from node_cli.datasets.series.source import series_dataset
from node_cli.datasets.series.tables import FILES
from node_cli.ode.checks import require_positive

ARRAYS = ("lengths", "years", "names", "hours", "values")


@series_dataset
def storms(horizon: float | None) -> RawSeries:
    """654 Atlantic storms of 1975 to 2022, a record about every six hours; the splits are of years, the last ones test.

    Times are hours since the first record of a storm. A window ends `horizon` hours after the last time that is seen,
    and there is none where no record is to be had then; None: it has `window` times.

    Source: NOAA, HURDAT2.

    Raises:
        ValueError: `horizon` is not positive.
    """
    require_positive(horizon=horizon)
    arrays = read_arrays(FILES / "storms.npz", ARRAYS)
    minutes = torch.from_numpy(arrays["hours"]).double().mul_(60).round_()
    lengths = arrays["lengths"].tolist()
    rows = zip((minutes / 60).split(lengths), torch.from_numpy(arrays["values"]).double().split(lengths), strict=True)
    series = tuple(
        Series(str(name), times, values, period=int(year))
        for name, year, (times, values) in zip(arrays["names"], arrays["years"], rows, strict=True)
    )
    return RawSeries(
        series,
        ("latitude", "longitude", "wind", "pressure"),
        time_unit="hour",
        channel_units=("degrees", "degrees", "knots", "mbar"),
        position_channels=(0, 1),
        period_name="years",
        horizon=horizon,
    )

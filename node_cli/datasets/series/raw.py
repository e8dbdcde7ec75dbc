"""Series as they were read or computed, in the units of whoever made them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from node_cli.series import CONTROLS, STATICS, TIMES, VALUES


@dataclass(frozen=True)
class Series:
    """One series, all in float64.

    Attributes:
        name: what messages call it.
        times: `(T,)`, increasing.
        values: `(T, channels)`, NaN where nothing was observed.
        controls: `(T, controls)`, known at all times.
        statics: `(statics,)`, what does not change in time.
        rows: where each value stands in the file, a list for each time; empty: the first time is row 1.
        period: series of one period, such as a year or a recording, go into the same split.
        truth: the values without their noise, if they were computed with any: of all series, or of none; then empty.
        train_start: where the times begin that it has for training, see `RawSeries.train_times`.
        dropped: `(T,)` bool, what `with_drops` hides; empty before it.
    """

    name: str
    times: Tensor
    values: Tensor
    controls: Tensor = field(default_factory=lambda: torch.empty(0))
    statics: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.float64))
    rows: Sequence[Sequence[int]] = ()
    period: int | None = None
    truth: Tensor = field(default_factory=lambda: torch.empty(0))
    train_start: int = 0
    dropped: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.bool))

    def place(self, index: int, column: int) -> str:
        """The series and the row of one of its values, for messages."""
        return f"series {self.name}, row {self.rows[index][column] if self.rows else index + 1}"


@dataclass(frozen=True)
class RawSeries:
    """All series of a source, and what their columns are called.

    Attributes:
        series: at least one.
        channel_names: of the values; control_names and static_names likewise.
        time_name: what the axis of time is called.
        time_unit: a word such as day; empty: none.
        calendar: of `node_cli.dates`: the times are numbers, or days since 1970-01-01 that are shown as dates.
        channel_units: a word for the unit of each channel; empty: not known.
        position_channels: which channels are a latitude and a longitude in degrees, if any.
        is_computed: another machine may compute other last digits.
        period_name: what the periods of the series are, years perhaps, of which the last ones are for test; empty: they
            have none, or no order.
        targets: the class of each series, `(n,)` int64, or, in float64, values that are to be told of it, `(n, k)`;
            None: nothing is.
        class_names: of the classes; empty: there are none.
        target_names: of the values; empty: there are none.
        test_series: which series the source has for test; empty: none.
        train_times: so many of its times a series has for training, where whole series are split; the others are for
            val and test alone. None: all of them.
        trains_beyond: training has all times of a series all the same, of which a model sees the first `train_times`.
        horizon: windows end so much time after their context, in the units of the times; None: they have a number of
            times.
    """

    series: tuple[Series, ...]
    channel_names: tuple[str, ...]
    control_names: tuple[str, ...] = ()
    static_names: tuple[str, ...] = ()
    time_name: str = "time"
    time_unit: str = ""
    calendar: str = ""
    channel_units: tuple[str, ...] = ()
    position_channels: tuple[int, ...] = ()
    is_computed: bool = False
    period_name: str = ""
    horizon: float | None = None
    targets: Tensor | None = None
    class_names: tuple[str, ...] = ()
    target_names: tuple[str, ...] = ()
    test_series: Collection[int] = ()
    train_times: int | None = None
    trains_beyond: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Of the series; a single one has none."""
        return tuple(each.name for each in self.series) if len(self.series) > 1 else ("",)

    @property
    def has_truth(self) -> bool:
        """Whether the values without their noise are known."""
        return len(self.series[0].truth) > 0

    def arrays(self) -> dict[str, Tensor]:
        """`times` `(n, T)`, `values` `(n, T, channels)` and so on, as `prepared_series` takes them.

        A shorter series repeats its last time and controls, and its values are NaN there.
        """
        longest = max(len(each.times) for each in self.series)

        def padded(tensor: Tensor, filling: Tensor) -> Tensor:
            return torch.cat([tensor, filling.expand(longest - len(tensor), *filling.shape[1:])])

        arrays = {
            TIMES: torch.stack([padded(each.times, each.times[-1:]) for each in self.series]),
            VALUES: torch.stack([padded(each.values, each.values[-1:] * torch.nan) for each in self.series]),
        }
        if self.control_names:
            arrays[CONTROLS] = torch.stack([padded(each.controls, each.controls[-1:]) for each in self.series])
        if self.static_names:
            arrays[STATICS] = torch.stack([each.statics for each in self.series])
        return arrays

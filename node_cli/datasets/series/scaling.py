"""From the units of the user to what a model of series sees: the logarithm, then mean 0 and std 1; and time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from node_cli.datasets.scaling import Scaling
from node_cli.series import Units


class SeriesScaling(NamedTuple):
    """How all tensors of series are scaled.

    Attributes:
        units: of values and times.
        controls, statics: of their columns; None: not at all.
    """

    units: Units
    controls: Scaling | None = None
    statics: Scaling | None = None

    @classmethod
    def of(cls, offers: Mapping[str, Any]) -> SeriesScaling:
        """What a dataset of series offers."""
        return cls(*(offers[name] for name in SCALINGS))

    def offers(self) -> dict[str, Any]:
        """The same as `of` takes them."""
        return dict(zip(SCALINGS, self, strict=True))


SCALINGS = ("units", "control_scaling", "static_scaling")  # offers, in the same order


def channels_last(scaling: Scaling | None, values: Tensor) -> Tensor:
    """Scales `(..., channels)`."""
    if scaling is None:
        return values
    return scaling(values.reshape(-1, values.shape[-1])).view(values.shape)


def fit_columns(columns: Tensor, names: Sequence[str], kind: str) -> Scaling:
    """Measures `(rows, columns)`, NaN where nothing was observed.

    Raises:
        ValueError: a column has one value in all of the training data, or none, or its numbers are too large.
    """
    mean, std = [], []
    for name, column in zip(names, columns.T, strict=True):
        seen = column[~column.isnan()]
        if not len(seen):
            raise ValueError(f"dataset: {kind} {name} has no value in the training data; leave it out")
        if seen.min() == seen.max():
            raise ValueError(
                f"dataset.normalize: {kind} {name} has one value ({seen[0].item():g}) in all of the training data; "
                "leave it out, or set dataset.normalize=false"
            )
        mean.append(seen.mean().item())
        std.append((seen - seen.mean()).square().mean().sqrt().item())
    if not torch.tensor([*mean, *std]).isfinite().all() or 0.0 in std:
        raise ValueError(
            f"dataset.normalize: the {kind}s are too large, or too close to each other, for a mean and a std; give "
            "them in another unit, or set dataset.normalize=false"
        )
    return Scaling(tuple(mean), tuple(std))


def unscaled(count: int) -> Scaling:
    """Leaves values as they are."""
    return Scaling((0.0,) * count, (1.0,) * count)


def chosen_time_scale(series: Sequence[tuple[Tensor, Tensor]]) -> float:
    """The time in which scaled values change by about 1, from times `(T,)` and scaled values `(T, C)` of train.

    It is the inverse of the RMS slope between neighbouring observations of a channel, at least the median spacing of
    the times and at most the longest span, and does not depend on the unit of time.
    """
    changes, spans, spacings, longest = 0.0, 0.0, [], 0.0
    for times, values in series:
        spacings.append(times.diff())
        longest = max(longest, (times[-1] - times[0]).item())
        for channel in values.T:
            seen = ~channel.isnan()
            changes += channel[seen].diff().square().sum().item()
            spans += times[seen].diff().square().sum().item()
    spacing = torch.cat(spacings).median().item()
    scale = (spans / changes) ** 0.5 if changes else longest
    return min(max(scale, spacing), longest)

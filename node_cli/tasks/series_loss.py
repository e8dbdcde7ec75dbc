"""The loss of series: errors at what counts, of scaled values or of logarithms, weighted by channel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from node_cli.batch import Batch
from node_cli.ode.checks import require, require_choice
from node_cli.ode.errors import ArgumentError
from node_cli.series import TARGET, VALUES, Units
from node_cli.tasks.task import Loss
from node_cli.tasks.trajectory_errors import logarithm

LOSSES = ("mse", "mae", "huber", "log_mse")


class SeriesLoss:
    """Sums over the targets of a batch.

    Args:
        kind: of scaled values: mse, mae or huber; log_mse: of the logarithms of values in the user's units.
        units: the way back to these.
        channel_names: a name for each channel.
        channel_weights: what the errors of each channel are multiplied by; None: all alike.

    Raises:
        ValueError: a setting is out of range.
    """

    def __init__(
        self, kind: str, units: Units, channel_names: Sequence[str], channel_weights: list[float] | None
    ) -> None:
        require_choice("loss", kind, LOSSES)
        weights = [1.0] * len(channel_names) if channel_weights is None else channel_weights
        are_weights = len(weights) == len(channel_names) and min(weights) >= 0 and sum(weights) > 0
        of_each = f"for each of {', '.join(channel_names)}"
        require(are_weights, f"channel_weights must be a number, 0 or more but not all 0, {of_each}", weights)
        self.kind, self.units, self.channel_weights = kind, units, weights

    def __call__(self, scaled: Tensor, batch: Batch) -> Loss:
        """Of predicted scaled values `(n, T, C)`."""
        weights = batch[TARGET] * scaled.new_tensor(self.channel_weights)
        errors = self._errors(scaled, batch)
        size = {"mae": errors.abs(), "huber": _huber(errors)}.get(self.kind, errors.square())
        return Loss((weights * size).sum(), weights.sum(), {})

    def residuals(self, scaled: Tensor, batch: Batch) -> Tensor:
        """Errors at all targets, `(values,)`, as the loss takes and weighs them."""
        errors = self._errors(scaled, batch)
        return (errors * errors.new_tensor(self.channel_weights).sqrt())[batch[TARGET]]

    def _errors(self, scaled: Tensor, batch: Batch) -> Tensor:
        """What the loss is made of: scaled errors, or those of logarithms; 0 elsewhere."""
        where = batch[TARGET]
        predicted, observed = torch.where(where, scaled, 0.0), torch.where(where, batch[VALUES], 0.0)
        if self.kind != "log_mse":
            return predicted - observed
        values = self.units.values(observed)
        if bool((values[where] <= 0).any()):
            raise ArgumentError(
                f"task.loss=log_mse needs values above 0, got {values[where].min().item():.4g}: take another loss"
            )
        log_ratio = logarithm(self.units, self.units.values(predicted)) - logarithm(self.units, values)
        return torch.where(where, log_ratio, 0.0)


def mean_of_targets(batch: Batch) -> Tensor:
    """Of each channel at all of its targets, in the shape of the values."""
    where = batch[TARGET]
    total, count = (batch[VALUES] * where).sum((0, 1)), where.sum((0, 1)).clamp(min=1)
    return (total / count).expand_as(batch[VALUES])


def _huber(errors: Tensor) -> Tensor:
    return nn.functional.huber_loss(errors, torch.zeros_like(errors), reduction="none")

"""Normalisation by the mean and the standard deviation of each channel."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Normalizer(NamedTuple):
    """Maps inputs `(samples, channels, ...)` to mean 0 and deviation 1; both fields are `(1, channels, 1, ...)`."""

    mean: Tensor
    deviation: Tensor

    def __call__(self, inputs: Tensor) -> Tensor:
        return (inputs - self.mean).div_(self.deviation)


def fit_normalizer(inputs: Tensor) -> Normalizer:
    """Measure `inputs` `(samples, channels, ...)`; a point's coordinates are its channels.

    Raises:
        ValueError: a channel is constant, or too large to be measured.
    """
    over = [dim for dim in range(inputs.dim()) if dim != 1]
    mean, deviation = inputs.mean(over, keepdim=True), inputs.std(over, correction=0, keepdim=True)
    if not (mean.isfinite() & deviation.isfinite()).all():
        raise ValueError(
            "dataset.normalize: the inputs are too large for a mean and a deviation in float32: scale them down, "
            "or set dataset.normalize=false"
        )
    constant = (deviation.flatten() == 0).nonzero().flatten().tolist()
    if constant:
        raise ValueError(
            f"dataset.normalize: channel(s) {constant} of the inputs have one value in all training samples; "
            "drop them or set dataset.normalize=false"
        )
    return Normalizer(mean, deviation)

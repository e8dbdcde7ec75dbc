"""Scaling by the mean and the std of each channel."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Scaling(NamedTuple):
    """Maps inputs `(samples, channels, ...)` to mean 0 and std 1, channel by channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, inputs: Tensor) -> Tensor:
        """The inputs, scaled."""
        mean, std = self._like(inputs)
        return (inputs - mean).div_(std)

    def undo(self, scaled: Tensor) -> Tensor:
        """What was scaled, in the units that it had before."""
        mean, std = self._like(scaled)
        return scaled * std + mean

    def _like(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        shape = (1, -1, *[1] * (inputs.dim() - 2))
        return inputs.new_tensor(self.mean).view(shape), inputs.new_tensor(self.std).view(shape)


def fit_scaling(inputs: Tensor) -> Scaling:
    """Measure `inputs` `(samples, channels, ...)`; a point's coordinates are its channels.

    Raises:
        ValueError: a channel is constant, or too large to be measured.
    """
    over = [dim for dim in range(inputs.dim()) if dim != 1]
    mean, std = inputs.mean(over), inputs.std(over, correction=0)
    if not (mean.isfinite() & std.isfinite()).all():
        raise ValueError(
            "dataset.normalize: the inputs are too large for a mean and a std in float32: scale them down, "
            "or set dataset.normalize=false"
        )
    constant = (std == 0).nonzero().flatten().tolist()
    if constant:
        raise ValueError(
            f"dataset.normalize: channel(s) {constant} of the inputs have one value in all training samples; "
            "drop them or set dataset.normalize=false"
        )
    return Scaling(tuple(mean.tolist()), tuple(std.tolist()))

"""From raw values to those that a model sees: a range, then the mean and the std of each channel."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

EIGHT_BITS = 255.0


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

    @classmethod
    def of(cls, mean: Any, std: Any) -> Scaling:
        """From a checkpoint.

        Raises:
            TypeError: it holds something else.
        """
        numbers = [*mean, *std]
        if (
            len(mean) != len(std)
            or not all(type(each) is float and math.isfinite(each) for each in numbers)
            or 0.0 in std
        ):
            raise TypeError("mean and std must be numbers for each channel")
        return cls(tuple(mean), tuple(std))

    def _like(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        shape = (1, -1, *[1] * (inputs.dim() - 2))
        return inputs.new_tensor(self.mean).view(shape), inputs.new_tensor(self.std).view(shape)


class Preprocessing(NamedTuple):
    """How raw values of a tensor become those that a model sees.

    Attributes:
        highest: the raw value that becomes 1. 255 stands for 8-bit images, which may also come as floating-point
            numbers from 0 to 1; None: values are taken as they are.
        scaling: what follows; None: nothing.
    """

    highest: float | None = None
    scaling: Scaling | None = None

    def __call__(self, name: str, raw: Tensor) -> Tensor:
        """The values as float32; `name` is for messages.

        Raises:
            ValueError: another kind of numbers, out of range, or not finite.
        """
        if raw.is_complex() or raw.dtype == torch.bool:
            raise ValueError(f"{name} must be numbers, got {_dtype(raw)}")
        if self.highest is None and not raw.is_floating_point():
            raise ValueError(
                f"{name} must be floating point, in the units that the model was trained on, got {_dtype(raw)}"
            )
        if self.highest == EIGHT_BITS and not (raw.is_floating_point() or raw.dtype == torch.uint8):
            raise ValueError(f"{name} must be uint8, 0 to 255, or floating point, 0 to 1, got {_dtype(raw)}")
        values = raw.to(torch.float32)
        if not values.isfinite().all():
            raise ValueError(f"{name} holds values that are NaN or infinite in float32")
        if self.highest is not None:
            values = self._from_0_to_1(name, values, raw.is_floating_point())
        return values if self.scaling is None else self.scaling(values)

    def _from_0_to_1(self, name: str, values: Tensor, is_floating_point: bool) -> Tensor:
        assert self.highest is not None
        highest = 1.0 if self.highest == EIGHT_BITS and is_floating_point else self.highest
        low, high = (value.item() for value in values.aminmax())
        if low < 0 or high > highest:
            also = ", or uint8, 0 to 255" if highest == 1 else ""
            raise ValueError(f"{name} must be from 0 to {highest:g}{also}, got {low:g} to {high:g}")
        return values / highest if highest != 1 else values

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether samples of this shape have as many channels as are scaled."""
        return self.scaling is None or (bool(shape) and shape[0] == len(self.scaling.mean))

    def state_dict(self) -> dict[str, Any]:
        """In plain containers."""
        return {"highest": self.highest, "scaling": None if self.scaling is None else self.scaling._asdict()}

    @classmethod
    def of(cls, highest: Any, scaling: Any) -> Preprocessing:
        """What `state_dict` gave.

        Raises:
            TypeError: it is something else.
        """
        if highest is not None and not (type(highest) is float and highest > 0):
            raise TypeError(f"highest is {highest!r}")
        return cls(highest, None if scaling is None else Scaling.of(**scaling))


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


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

"""What models require of their settings and of the data: what is wrong is said in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

Choice = TypeVar("Choice")


def choose(key: str, name: str, choices: Mapping[str, Choice]) -> Choice:
    """The choice called `name`; raises ValueError with all names if there is none."""
    if name not in choices:
        raise ValueError(f"{key} must be one of {', '.join(choices)}, got {name!r}")
    return choices[name]


def require_images(input_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """`input_shape` as (channels, height, width); raises ValueError when the dataset has no images."""
    if len(input_shape) != 3:
        raise ValueError(
            f"model needs images (c, h, w), the dataset has points of shape {tuple(input_shape)}: "
            "use model=odenet_mlp or model=mlp"
        )
    channels, height, width = input_shape
    return channels, height, width


def require_points(input_shape: tuple[int, ...]) -> int:
    """The dimension of the points; raises ValueError when the dataset has no points."""
    if len(input_shape) != 1:
        raise ValueError(
            f"model needs points (d,), the dataset has images of shape {tuple(input_shape)}: "
            "use model=odenet, model=resnet or model=mlp"
        )
    return input_shape[0]

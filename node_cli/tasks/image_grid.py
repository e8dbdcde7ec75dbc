"""Images beside and below each other in one figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS, COLUMNS = 4, 8
DPI = 100


def image_grid(images: np.ndarray, captions: Sequence[str], title: str, colour: str = "black") -> Figure:
    """Draw as many of `images` (n, channels, height, width) as there are captions, all on one grey scale."""
    from matplotlib.figure import Figure

    num_images, num_channels = len(captions), images.shape[1]
    if num_channels not in (1, 3):
        images, title = images[:, :1], f"{title} (first channel of {num_channels})"
    if num_images == 0:
        figure = Figure(figsize=(5.0, 1.5), dpi=DPI, layout="constrained")
        axes = figure.subplots()
        axes.axis("off")
        axes.text(0.5, 0.5, title, ha="center", va="center", fontsize=12)
        return figure
    if num_images < len(images):
        title = f"{title} (the first {num_images})"
    images = _rescale(images[:num_images]).transpose(0, 2, 3, 1)
    font_size = min(9.0, 125 / max(1, *map(len, captions)))  # fits the longest caption over its image
    columns = min(COLUMNS, max(num_images, 4))
    rows = -(-num_images // columns)
    # One axes for all: a subplot for each image would take ten times as long.
    width, height = 1.15 * columns, 1.35 * rows + 0.5
    figure = Figure(figsize=(width, height), dpi=DPI)
    figure.suptitle(title, fontsize=11, y=1 - 0.1 / height, va="top")
    axes = figure.add_axes((0, 0, 1, 1 - 0.5 / height))
    for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
        left, top = 1.15 * (index % columns) + 0.075, -1.35 * (index // columns)
        axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest", extent=(left, left + 1, top - 1, top))
        own: dict[str, Any] = {"color": colour, "fontsize": font_size, "parse_math": False}
        axes.text(left + 0.5, top + 0.05, caption, ha="center", va="bottom", **own)
    axes.set(xlim=(0, width), ylim=(-1.35 * rows + 0.25, 0.3))
    axes.axis("off")
    return figure


def _rescale(images: np.ndarray) -> np.ndarray:
    low, high = images.min(), images.max()
    return (images - low) / (high - low) if high > low else np.zeros_like(images)

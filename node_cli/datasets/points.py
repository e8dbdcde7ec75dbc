"""What the made-up point sets share."""

from __future__ import annotations

import torch

from node_cli.datasets.assembling import offers_of
from node_cli.datasets.dataset import Dataset
from node_cli.datasets.scaling import Preprocessing
from node_cli.datasets.splitting import stratified_splits
from node_cli.ode.checks import require_at_least


def balanced_targets(num_samples: int, num_classes: int) -> torch.Tensor:
    """Labels 0, 1, ..., 0, 1, ... `(num_samples,)`: class sizes differ by one at most.

    Raises:
        ValueError: there are fewer samples than classes.
    """
    require_at_least("num_samples", num_samples, num_classes)
    return torch.arange(num_samples) % num_classes


def add_noise(inputs: torch.Tensor, noise: float, generator: torch.Generator) -> torch.Tensor:
    """Add Gaussian noise of std `noise` to each coordinate.

    Raises:
        ValueError: `noise` is negative.
    """
    require_at_least("noise", noise, 0)
    return inputs + noise * torch.randn(inputs.shape, generator=generator)


def on_circle(angles: torch.Tensor) -> torch.Tensor:
    """Points `(samples, 2)` of the unit circle at these angles `(samples,)`."""
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def point_dataset(
    inputs: torch.Tensor,
    targets: torch.Tensor | None,
    split_seed: int,
    val_fraction: float,
    test_fraction: float,
    **further: torch.Tensor,
) -> Dataset:
    """Split points `(samples, d)` with labels `(samples,)`, if there are any; both fractions are of all samples.

    `further` tensors go along with the samples, each under its name.

    Raises:
        ValueError: a fraction is out of range or too small for the number of samples.
    """
    samples = {"inputs": inputs.float(), **further}
    if targets is not None:
        samples["targets"] = targets
    splits = stratified_splits(samples, {"test": test_fraction, "val": val_fraction}, split_seed)
    class_names = None if targets is None else tuple(str(label) for label in range(int(targets.max()) + 1))
    return Dataset(splits, offers_of(splits["train"], class_names), preprocessing={"inputs": Preprocessing()})

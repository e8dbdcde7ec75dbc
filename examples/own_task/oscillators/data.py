"""Series of damped oscillators: some end early, and of the others not every value was observed."""

import torch

from node_cli import Batch, Dataset


def oscillators(num_series: int, num_times: int, noise: float, observed: float, data_seed: int) -> Dataset:
    """x(t) = exp(-t / 4) cos(2 t + phase) and its derivative, at `num_times` times from 0 to 4, with noise.

    Every tensor of a batch has the series as its first dimension: `values` `(series, times, 2)`, `mask` of the same
    shape (True where a value was observed: the fraction `observed`, up to where the series ends), and `start`, the
    state at time 0. What all series share, the times, is offered to the model.
    """
    generator = torch.Generator().manual_seed(data_seed)
    times = torch.linspace(0, 4, num_times, dtype=torch.float64)
    phase = 6.283 * torch.rand(num_series, 1, generator=generator, dtype=torch.float64)
    size = torch.exp(-times / 4)
    position = size * torch.cos(2 * times + phase)
    velocity = -size * (torch.cos(2 * times + phase) / 4 + 2 * torch.sin(2 * times + phase))
    states = torch.stack([position, velocity], dim=2).float()
    lengths = torch.randint(num_times // 2, num_times + 1, (num_series, 1), generator=generator)
    mask = (torch.rand(states.shape, generator=generator) < observed) & (torch.arange(num_times) < lengths)[:, :, None]
    values = torch.where(mask, states + noise * torch.randn(states.shape, generator=generator), 0.0)  # 0 is padding
    series: Batch = {"start": states[:, 0], "values": values, "mask": mask}
    sizes = {"train": num_series - 2 * (num_series // 5), "val": num_series // 5, "test": num_series // 5}
    parts = {name: tensor.split(list(sizes.values())) for name, tensor in series.items()}
    splits = {split: {name: part[i] for name, part in parts.items()} for i, split in enumerate(sizes)}
    return Dataset(splits, offers={"times": tuple(times.tolist()), "num_channels": 2})

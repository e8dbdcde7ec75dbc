"""Batches of series, and what a dataset offers with them, for the tests of models."""

import torch

from node_cli.datasets.scaling import Scaling
from node_cli.series import CONTROLS, MASK, START, STATICS, TARGET, TIMES, VALUES, Units

NAMES = ("hare", "lynx", "owl", "fox")


def offers(num_channels=2, num_controls=0, num_statics=0, num_starts=3, num_segments=1, is_log=False, **others):
    """As a dataset of so many channels offers it; the time is in years, one and a half of them a unit."""

    def scaling(size, mean):
        return Scaling(tuple(mean + 0.1 * i for i in range(size)), tuple(0.5 + 0.25 * i for i in range(size)))

    return {
        "num_channels": num_channels,
        "num_controls": num_controls,
        "num_statics": num_statics,
        "num_starts": num_starts,
        "num_segments": num_segments,
        "channel_names": NAMES[:num_channels],
        "control_names": tuple(f"dose{i}" for i in range(num_controls)),
        "static_names": tuple(f"age{i}" for i in range(num_statics)),
        "units": Units(*scaling(num_channels, 0.4), is_log=is_log, t0=3.0, time_scale=1.5),
        "time_name": "year",
        "control_scaling": scaling(num_controls, 1.0) if num_controls else None,
        "static_scaling": scaling(num_statics, 2.0) if num_statics else None,
        **others,
    }


def batch_of(n=3, T=6, C=2, k=0, s=0, hidden=0.0, dtype=torch.float64, own_times=False, seed=0):
    """Series with gaps. The last two times are not seen; hidden values are `hidden`."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    gaps = 0.2 + 0.4 * torch.rand(n if own_times else 1, T, generator=generator, dtype=torch.float64)
    times = gaps.cumsum(1).expand(n, T).clone()
    observed = torch.rand(n, T, C, generator=generator) > 0.25
    observed[:, 0] = True
    if own_times:
        times[-1, T - 2 :] = times[-1, T - 3]
        observed[-1, T - 2 :] = False
    mask = observed.clone()
    mask[:, -2:] = False
    batch = {
        TIMES: times,
        VALUES: (0.6 * random(n, T, C)).masked_fill(~mask, hidden),
        MASK: mask,
        TARGET: observed,
        START: torch.arange(n),
    }
    if k:
        batch[CONTROLS] = random(n, T, k)
    if s:
        batch[STATICS] = random(n, s)
    return batch

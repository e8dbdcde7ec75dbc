"""Optuna's samplers and pruners by our names."""

from __future__ import annotations

import numpy as np
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from node_cli.tuning.settings import Settings


def make_sampler(settings: Settings, number: int, *, learns: bool) -> BaseSampler:
    """What draws one trial. Its seed follows from the trial's number: a study that goes on repeats no draw."""
    seed = int(np.random.SeedSequence([settings.seed, number]).generate_state(1)[0])
    if not learns:
        return RandomSampler(seed)
    return TPESampler(seed=seed, n_startup_trials=settings.startup_trials, multivariate=False)


def make_pruner(settings: Settings) -> BasePruner:
    """What stops trials that fall behind, after `warmup_epochs`."""
    if settings.pruner == "median":
        return MedianPruner(settings.startup_trials, settings.warmup_epochs)
    if settings.pruner == "halving":
        return SuccessiveHalvingPruner(min_resource=max(1, settings.warmup_epochs), reduction_factor=3)
    return NopPruner()

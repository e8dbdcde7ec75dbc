"""What is refused before a run begins, as it cannot work with the series at hand."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from node_cli.batch import Batch
from node_cli.series import MASK, TARGET, TIMES, SeriesModel, visible
from node_cli.tasks.forecast_metrics import same_as_last_season


def longest(batch: Batch) -> int:
    """The number of times of the longest series, without padding."""
    times = batch[TIMES]
    return 1 + int((times.diff(dim=1) > 0).sum(1).max().item()) if len(times) else 0


def chosen_strategy(model: SeriesModel, train: Batch, window: int) -> tuple[str, str]:
    """What `strategy=auto` is, and why: windows where whole series are longer than one and a half of them."""
    if not model.learns_from_windows:
        return "full", f"{type(model).__name__} does not start from the first observation of a window"
    if bool((train[TARGET] & ~train[MASK]).any()):
        return "full", "dataset.window has cut the series"
    num_times = longest(train)
    if 2 * num_times <= 3 * window:
        return "full", f"the longest series of train has {num_times} times, at most 1.5 windows of {window}"
    return "windows", f"the longest series of train has {num_times} times, more than 1.5 windows of {window}"


def check_length(key: str, size: int, needed: int, train: Batch) -> None:
    """Refuses pieces of which a series has fewer times than `needed`."""
    if needed > longest(train):
        raise ValueError(
            f"{key}={size} needs a series of at least {needed} times, and the longest one of train has {longest(train)}"
        )


def check_season(splits: Mapping[str, Batch], season: int) -> None:
    """Refuses a season so long that no value of a split has one that was seen a season before."""
    for split, batch in splits.items():
        found: Tensor = same_as_last_season(visible(batch), season).isfinite() & batch[TARGET]
        if split != "train" and not bool(found.any()):
            raise ValueError(
                f"task.season={season}: no value of {split} has one a season before that the model sees; the longest "
                f"series has {longest(batch)} times; take a shorter season, or null"
            )


def check_something_to_fit(train: Batch) -> None:
    """Refuses training data of which a model sees all, for one that returns what it sees."""
    if not bool((train[TARGET] & ~train[MASK]).any()):
        raise ValueError(
            "model.start=last returns what it sees, and in training it sees everything, so that nothing is learned: "
            "set dataset.window and dataset.context, or task.strategy=windows"
        )

"""Stratified splits: every split has every class in the same proportion; without classes, random ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from node_cli.batch import Batch, num_samples, take
from node_cli.datasets.labels import as_values
from node_cli.datasets.series.keys import SeriesKeys, count_of
from node_cli.series import TARGETS


def stratified_splits(
    samples: Batch,
    fractions: Mapping[str, float],
    seed: int,
    *,
    keys: Mapping[str, str] | None = None,
    class_names: Sequence[str] = (),
) -> dict[str, Batch]:
    """Cut the parts named in `fractions` ("test", "val") out of `samples`; what is left is "train".

    Of a class with n samples each part gets n * fraction, rounded to the nearest whole number, halves up; without
    `targets` that are classes all samples are of one. Within a split the samples keep their order. A part is the same
    whatever the fractions of the parts named after it. Messages show `keys` and `class_names`.

    Raises:
        ValueError: a fraction is out of range, or a split would be left without a sample of some class.
    """
    _check_fractions(fractions)
    keys = keys or {name: f"dataset.{name}_fraction={fraction}" for name, fraction in fractions.items()}
    generator = torch.Generator().manual_seed(seed)
    chosen: dict[str, list[torch.Tensor]] = {name: [] for name in (*fractions, "train")}
    has_classes = TARGETS in samples and not samples[TARGETS].is_floating_point()
    labels = samples[TARGETS] if has_classes else torch.zeros(num_samples(samples))
    for label in labels.unique():
        members = (labels == label).nonzero().squeeze(1)
        members = members[torch.randperm(len(members), generator=generator)]
        sizes = [int(len(members) * fraction + 0.5) for fraction in fractions.values()]
        sizes.append(len(members) - sum(sizes))
        if min(sizes) < 1:
            name = class_names[int(label)] if class_names else int(label)
            subject = f"class {name} has" if has_classes else "there are"
            raise ValueError(
                f"{', '.join(keys.values())}: {subject} {len(members)} sample(s), too few to leave one in every split; "
                f"give more samples or other fractions{as_values(class_names) if class_names else ''}"
            )
        for indices, part in zip(chosen.values(), members.split(sizes), strict=True):
            indices.append(part)
    return {name: take(samples, torch.cat(indices).sort().values) for name, indices in chosen.items()}


def splits_by_keys(
    samples: Batch, keys: SeriesKeys, path: str, parts: Sequence[str] = ("test", "val"), class_names: Sequence[str] = ()
) -> dict[str, Batch]:
    """`stratified_splits` of a user's own samples, of which `dataset.test` and `dataset.val` say how many.

    Raises:
        ValueError: likewise.
    """
    total = num_samples(samples)
    told = {name: f"dataset.{name}={getattr(keys, name)}" for name in parts}
    counts = {name: count_of(name, getattr(keys, name), total, "samples") for name in parts}
    if min([*counts.values(), total - sum(counts.values())]) < 1:
        raise ValueError(
            f"{', '.join(told.values())}: of the {total} samples of {path} at least one must be left in every split"
        )
    fractions = {name: count / total for name, count in counts.items()}
    return stratified_splits(samples, fractions, keys.split_seed, keys=told, class_names=class_names)


def _check_fractions(fractions: Mapping[str, float]) -> None:
    for name, fraction in fractions.items():
        if not 0 < fraction < 1:
            raise ValueError(f"dataset.{name}_fraction: got {fraction}, must lie between 0 and 1, both excluded")
    if sum(fractions.values()) >= 1:
        keys = " + ".join(f"dataset.{name}_fraction" for name in fractions)
        raise ValueError(f"{keys}: got {sum(fractions.values())}, must be below 1 to leave samples for training")

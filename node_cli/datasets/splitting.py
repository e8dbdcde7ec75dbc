"""Stratified splits: every split has every class in the same proportion; without classes, random ones."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from node_cli.batch import Batch, num_samples, take


def stratified_splits(samples: Batch, fractions: Mapping[str, float], seed: int) -> dict[str, Batch]:
    """Cut the parts named in `fractions` ("test", "val") out of `samples`; what is left is "train".

    Of a class with n samples each part gets n * fraction, rounded to the nearest whole number, halves up; without
    `targets` all samples are of one class. Within a split the samples keep their order. A part is the same whatever
    the fractions of the parts named after it.

    Raises:
        ValueError: a fraction is out of range, or a split would be left without a sample of some class.
    """
    _check_fractions(fractions)
    generator = torch.Generator().manual_seed(seed)
    chosen: dict[str, list[torch.Tensor]] = {name: [] for name in (*fractions, "train")}
    labels = samples.get("targets", torch.zeros(num_samples(samples)))
    for label in labels.unique():
        members = (labels == label).nonzero().squeeze(1)
        members = members[torch.randperm(len(members), generator=generator)]
        sizes = _sizes(f"class {int(label)} has" if "targets" in samples else "there are", len(members), fractions)
        for indices, part in zip(chosen.values(), members.split(sizes), strict=True):
            indices.append(part)
    return {name: take(samples, torch.cat(indices).sort().values) for name, indices in chosen.items()}


def _sizes(subject: str, num_members: int, fractions: Mapping[str, float]) -> list[int]:
    sizes = [int(num_members * fraction + 0.5) for fraction in fractions.values()]
    sizes.append(num_members - sum(sizes))
    if min(sizes) < 1:
        keys = ", ".join(f"dataset.{name}_fraction={fraction}" for name, fraction in fractions.items())
        raise ValueError(
            f"{keys}: {subject} {num_members} sample(s), too few to leave one in every split; "
            "give more samples or other fractions"
        )
    return sizes


def _check_fractions(fractions: Mapping[str, float]) -> None:
    for name, fraction in fractions.items():
        if not 0 < fraction < 1:
            raise ValueError(f"dataset.{name}_fraction: got {fraction}, must lie between 0 and 1, both excluded")
    if sum(fractions.values()) >= 1:
        keys = " + ".join(f"dataset.{name}_fraction" for name in fractions)
        raise ValueError(f"{keys}: got {sum(fractions.values())}, must be below 1 to leave samples for training")

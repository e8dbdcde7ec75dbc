"""What is to be told of each series: its class, or values of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from node_cli.batch import Batch
from node_cli.datasets.scaling import Preprocessing, Scaling
from node_cli.datasets.series.cutting import Sample
from node_cli.datasets.series.keys import SeriesKeys
from node_cli.datasets.series.raw import RawSeries
from node_cli.datasets.series.scaling import fit_columns, unscaled
from node_cli.series import TARGETS

BY_TIME = "dataset.split=time has every series, and so its label, in every split: set dataset.split=series"
UNLABELLED = (
    "dataset: these series have no labels: take task=trajectory, set dataset.label of dataset=csv, or take a dataset "
    "with classes, such as japanese_vowels"
)


@dataclass(frozen=True)
class Labels:
    """The labels of all series, as a batch has them; None: there are none.

    Attributes:
        scaling: of values; None: classes.
        lacks: as `Dataset.lacks`.
    """

    targets: Tensor | None = None
    class_names: tuple[str, ...] = ()
    target_names: tuple[str, ...] = ()
    scaling: Scaling | None = None
    lacks: Mapping[str, str] = field(default_factory=dict)

    def batch(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Those of some samples."""
        if self.targets is None:
            return {}
        return {TARGETS: self.targets[torch.tensor([sample.series for sample in samples])]}

    def offers(self, train: Batch) -> dict[str, Any]:
        """Classes and how many samples of train each has, or the names and the scaling of values."""
        if self.targets is None:
            return {}
        if self.scaling is not None:
            return {"target_names": self.target_names, "target_scaling": self.scaling}
        counts = train[TARGETS].bincount(minlength=len(self.class_names))
        return {"class_names": self.class_names, "class_counts": tuple(counts.tolist())}

    @property
    def preprocessing(self) -> dict[str, Preprocessing]:
        """How the values that a user gives become targets."""
        return {} if self.scaling is None else {TARGETS: Preprocessing(None, self.scaling)}


def labels_of(raw: RawSeries, keys: SeriesKeys, train: Sequence[int]) -> Labels:
    """The labels of all series; values are scaled as the series of `train` say.

    Raises:
        ValueError: a value is the same in all series of train.
    """
    if raw.targets is None:
        return Labels(lacks=dict.fromkeys(("class_names", "target_names"), UNLABELLED))
    if keys.split == "time":
        return Labels(lacks=dict.fromkeys(("class_names", "target_names"), BY_TIME))
    if raw.class_names:
        told = "the labels are classes: take task=classification"
        return Labels(raw.targets, raw.class_names, lacks={"target_names": told})
    names = raw.target_names
    scaling = fit_columns(raw.targets[train], names, "label") if keys.normalize else unscaled(len(names))
    told = f"{', '.join(names)} {'is a number' if len(names) == 1 else 'are numbers'}: take task=regression"
    return Labels(scaling(raw.targets).float(), (), names, scaling, {"class_names": told})

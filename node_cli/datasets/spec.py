"""What a trained model needs to know of its dataset: with it, it is used where the data are not at hand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from node_cli.batch import Batch, num_samples
from node_cli.datasets.dataset import Dataset
from node_cli.datasets.labels import are_whole
from node_cli.datasets.scaling import Preprocessing, Scaling
from node_cli.datasets.series.new_data import fit_series, prepared_series
from node_cli.series import TARGETS, Units

OF_CLASSES = {"input_shape": int, "class_names": str, "class_counts": int}
OF_SERIES = {
    "channel_names": str,
    "control_names": str,
    "static_names": str,
    "channel_units": str,
    "position_channels": int,
    "train_ends": float,
    "target_names": str,
}
OF_TABLES = {"column_names": str}
TUPLES = OF_CLASSES | OF_SERIES | OF_TABLES  # offers of ours, and what they are tuples of
MAX_LEVELS = 2**16
PLAIN = (str, int, float, bool, type(None))
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (torch.float32, torch.float64, torch.int64, torch.bool)}


class SampleSpec(NamedTuple):
    """The shape of one sample of a tensor, and its dtype by name."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class DataSpec:
    """Offers of a dataset, and of each tensor of its batches the samples and how raw values become those."""

    offers: Mapping[str, Any]
    samples: Mapping[str, SampleSpec]
    preprocessing: Mapping[str, Preprocessing]

    @classmethod
    def of(cls, dataset: Dataset) -> DataSpec:
        """Of the training split."""
        batch = dataset.splits["train"]
        samples = {
            name: SampleSpec(tuple(tensor.shape[1:]), str(tensor.dtype).removeprefix("torch."))
            for name, tensor in batch.items()
        }
        return cls(dataset.offers, samples, dataset.preprocessing)

    def state_dict(self) -> dict[str, Any]:
        """In plain containers, for a checkpoint; empty where something in it is not plain."""
        scalings = {name: offer._asdict() for name, offer in self.offers.items() if isinstance(offer, Scaling)}
        units = {name: asdict(offer) for name, offer in self.offers.items() if isinstance(offer, Units)}
        offers = {name: offer for name, offer in self.offers.items() if name not in scalings.keys() | units.keys()}
        if not _is_plain(offers) or any(spec.dtype not in DTYPES for spec in self.samples.values()):
            return {}
        return {
            "offers": offers,
            "scalings": scalings,
            "units": units,
            "samples": {name: spec._asdict() for name, spec in self.samples.items()},
            "preprocessing": {name: each.state_dict() for name, each in self.preprocessing.items()},
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> DataSpec:
        """What `state_dict` gave.

        Raises:
            ValueError: it is something else.
        """
        try:
            scalings = {name: Scaling.of(**values) for name, values in state["scalings"].items()}
            units = {name: _units(**values) for name, values in state.get("units", {}).items()}
            samples = {name: _sample_spec(**values) for name, values in state["samples"].items()}
            preprocessing = {name: Preprocessing.of(**values) for name, values in state["preprocessing"].items()}
            offers = {**state["offers"], **scalings, **units}
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"what it holds of its dataset is damaged ({error})") from error
        fits = all(name in samples and each.fits(samples[name].shape) for name, each in preprocessing.items())
        are_offers = _is_plain(state["offers"]) and all(_is_offer(name, offer) for name, offer in offers.items())
        is_whole = are_offers and _fit_labels(offers) and ("units" not in offers or fit_series(offers))
        if not (samples and fits and is_whole):
            raise ValueError("what it holds of its dataset is damaged")
        return cls(offers, samples, preprocessing)

    def prepared(self, raw: Mapping[str, Any], required: tuple[str, ...] | None) -> Batch:
        """A batch as the model sees it, from arrays or tensors in the units of the user.

        Args:
            raw: some of the tensors that a batch has, by name, samples first. Of series: see `prepared_series`.
            required: those that must be there; None: all. Of series it is known which.

        Raises:
            ValueError: one is missing, unknown, of another shape or kind, or not finite.
        """
        if "units" in self.offers:
            own = {TARGETS} & self.samples.keys()
            batch = prepared_series({name: raw[name] for name in raw if name not in own}, self.offers)
            labels = {name: self._tensor(name, raw[name]) for name in raw if name in own}
            return self._of_equally_many({**batch, **labels})
        known = ", ".join(f"{name} {_shape_of_many(spec.shape)}" for name, spec in self.samples.items())
        missing = [name for name in required or self.samples if name not in raw]
        unknown = [str(name) for name in raw if name not in self.samples]
        if missing or unknown:
            told = f"{missing[0]} is missing" if missing else f"{unknown[0]} is unknown"
            raise ValueError(f"{told}: the model was trained on {known}")
        return self._of_equally_many({name: self._tensor(name, value) for name, value in raw.items()})

    @staticmethod
    def _of_equally_many(batch: Batch) -> Batch:
        counts = {name: len(tensor) for name, tensor in batch.items()}
        if len(set(counts.values())) != 1 or not num_samples(batch):
            raise ValueError(f"there must be samples, of each tensor as many, got {counts}")
        return batch

    def _labels(self, targets: Any) -> Any:
        """Labels as training has them: classes that are given by their names as indices, and single values `(n, 1)`."""
        names = self.offers.get("class_names", ())
        are_numbers = are_whole(names) and names != tuple(map(str, range(len(names))))
        given = np.asarray(targets)
        if given.ndim == 1 and self.samples[TARGETS].shape == (1,):
            return given[:, None]
        if names and given.dtype.kind in "bf" and np.isfinite(given).all() and (given == np.floor(given)).all():
            given = given.astype(np.int64)  # as `array_labels` reads them
        if given.dtype.kind != "U" and not (are_numbers and given.dtype.kind in "iu"):
            return given
        places = {name: place for place, name in enumerate(names)}
        unknown = [each for each in map(str, given.flatten().tolist()) if each not in places]
        if unknown:
            raise ValueError(f"targets must be of the classes {', '.join(names[:20])}, got {unknown[0][:40]}")
        return np.array([places[str(each)] for each in given.flatten().tolist()]).reshape(given.shape)

    def _tensor(self, name: str, value: Any) -> Tensor:
        spec = self.samples[name]
        try:
            tensor = torch.as_tensor(self._labels(value) if name == TARGETS else value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{name} must be an array of numbers ({' '.join(str(error).split())[:100]})") from error
        if tensor.dim() == 0 or tuple(tensor.shape[1:]) != spec.shape:
            raise ValueError(f"{name} must be {_shape_of_many(spec.shape)}, got {tuple(tensor.shape)}")
        preprocess = self.preprocessing.get(name)
        if preprocess is not None:
            tensor = preprocess(name, tensor)
        like = DTYPES[spec.dtype]
        if tensor.is_complex() or (tensor.is_floating_point() and not like.is_floating_point):
            raise ValueError(f"{name} must be of dtype {spec.dtype}, got {str(tensor.dtype).removeprefix('torch.')}")
        return tensor.to(like)


def _fit_labels(offers: Mapping[str, Any]) -> bool:
    """Whether each value that is told has a name and a scale."""
    scaling = offers.get("target_scaling", Scaling((), ()))
    return isinstance(scaling, Scaling) and len(scaling.mean) == len(offers.get("target_names", ()))


def _shape_of_many(shape: tuple[int, ...]) -> str:
    """`(n, 1, 8, 8)`, of n samples."""
    return f"({', '.join(['n', *map(str, shape)])}{'' if shape else ','})"


def _sample_spec(shape: Any, dtype: Any) -> SampleSpec:
    sizes = tuple(shape)
    if not all(type(size) is int and 0 <= size < 2**31 for size in sizes) or dtype not in DTYPES:
        raise TypeError(f"samples of shape {sizes} and dtype {dtype}")
    if math.prod(sizes) >= 2**40:
        raise TypeError(f"samples of shape {sizes}")
    return SampleSpec(sizes, dtype)


def _units(mean: Any, std: Any, is_log: Any, t0: Any, time_scale: Any) -> Units:
    scaling, time = Scaling.of(mean, std), Scaling.of((t0,), (time_scale,))
    if type(is_log) is not bool or min(*scaling.std, *time.std) <= 0:
        raise TypeError("units must be a mean and a std for each channel, and a scale of time")
    return Units(*scaling, is_log, t0, time_scale)


def _is_offer(name: Any, offer: Any) -> bool:
    if name == "num_levels":
        return type(offer) is int and 2 <= offer <= MAX_LEVELS
    kind = TUPLES.get(name)
    is_known = kind is None or (type(offer) is tuple and all(type(item) is kind for item in offer))
    return isinstance(name, str) and is_known


def _is_plain(value: Any) -> bool:
    """Whether a checkpoint may hold it."""
    if isinstance(value, Mapping):
        return all(isinstance(key, (str, int)) and _is_plain(child) for key, child in value.items())
    if type(value) in (list, tuple):
        return all(map(_is_plain, value))
    return type(value) is Tensor or type(value) in PLAIN

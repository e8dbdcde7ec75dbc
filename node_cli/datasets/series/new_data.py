"""New series of a user, made into what a model was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from node_cli.batch import Batch
from node_cli.datasets.series.scaling import SeriesScaling, channels_last
from node_cli.dates import KINDS
from node_cli.series import CONTROLS, MASK, START, STATICS, TARGET, TIMES, VALUES


def prepared_series(raw: Mapping[str, Any], offers: Mapping[str, Any]) -> Batch:
    """A batch as the model sees it, in float32 but for its times, from arrays or tensors in the units of the user.

    Args:
        raw: `times` `(n, T)`, increasing, where a shorter series repeats its last time; `values` `(n, T, channels)`,
            NaN where nothing was observed or a forecast is wanted; `controls` `(n, T, controls)` and `statics`
            `(n, statics)`, if there were any in training. Perhaps also `mask` and `target` `(n, T, channels)`: what
            the model may see and where an error counts, without them all that was observed; and `start` `(n,)`:
            which sample of the training data begins where each one does, -1 for none of them.
        offers: of the dataset that the model was trained on.

    Raises:
        ValueError: a tensor is missing, unknown, of another shape or kind, or not finite; or times do not increase.
    """
    sizes = [offers[f"num_{name}"] for name in ("channels", "controls", "statics")]
    return _scaled(checked_series(raw, sizes, (MASK, TARGET, START)), offers)


def checked_series(raw: Mapping[str, Any], sizes: Sequence[int | str], also: Sequence[str] = ()) -> dict[str, Tensor]:
    """The arrays or tensors of series as tensors, numbers in float64.

    Args:
        raw: as `prepared_series` has it.
        sizes: how many channels, controls and statics there are; where that is not known, a word for messages.
        also: what may be there besides.

    Raises:
        ValueError: as `prepared_series`.
    """
    num_channels, num_controls, num_statics = sizes
    required: dict[str, tuple[Any, ...]] = {TIMES: ("T",), VALUES: ("T", num_channels)}
    required |= {CONTROLS: ("T", num_controls)} if num_controls else {}
    required |= {STATICS: (num_statics,)} if num_statics else {}
    further = {MASK: ("T", num_channels), TARGET: ("T", num_channels), START: ()}
    shapes = required | {name: further[name] for name in also}
    known = ", ".join(f"{name} ({', '.join(map(str, ('n', *shape)))})" for name, shape in shapes.items())
    missing = [name for name in required if name not in raw]
    unknown = [str(name) for name in raw if name not in shapes]
    if missing or unknown:
        told = f"{missing[0]} is missing" if missing else f"{unknown[0]} is unknown"
        raise ValueError(f"{told}: a batch of these series has {known}{', the last three if need be' if also else ''}")
    tensors = {name: _tensor(name, value) for name, value in raw.items()}
    times = tensors[TIMES]
    size = tuple(times.shape) if times.dim() == 2 and times.numel() else ("n", "T")
    for name, tensor in tensors.items():
        expected = (size[0], *(size[1] if part == "T" else part for part in shapes[name]))
        if tuple(tensor.shape) != expected:
            raise ValueError(f"{name} must be ({', '.join(map(str, expected))}), got {tuple(tensor.shape)}")
    checked = {name: _of_kind(name, tensor) for name, tensor in tensors.items()}
    _check_times(checked[TIMES], ~checked[VALUES].isnan())
    return checked


def _tensor(name: str, value: Any) -> Tensor:
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} must be an array of numbers ({' '.join(str(error).split())[:100]})") from error


def _of_kind(name: str, tensor: Tensor) -> Tensor:
    """Numbers in float64, finite but for missing values."""
    is_whole = not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)
    wanted = {MASK: "bool", TARGET: "bool", START: "whole numbers"}.get(name, "numbers")
    fits = {"bool": tensor.dtype == torch.bool, "whole numbers": is_whole}
    if not fits.get(wanted, is_whole or tensor.is_floating_point()):
        raise ValueError(f"{name} must be {wanted}, got {str(tensor.dtype).removeprefix('torch.')}")
    if wanted != "numbers":
        return tensor
    numbers = tensor.double()
    if numbers.isinf().any() or (name != VALUES and numbers.isnan().any()):
        raise ValueError(f"{name} holds numbers that are {'infinite' if name == VALUES else 'NaN or infinite'}")
    return numbers


def _scaled(raw: dict[str, Tensor], offers: Mapping[str, Any]) -> Batch:
    times, values = raw[TIMES], raw[VALUES]
    observed = ~values.isnan()
    scaling = SeriesScaling.of(offers)
    if scaling.units.is_log and (values <= 0).any():
        sample, row, channel = (values <= 0).nonzero()[0].tolist()
        raise ValueError(
            f"values must be above 0, as the model learned their logarithm: sample {sample}, time {row}, "
            f"{offers['channel_names'][channel]} has {values[sample, row, channel].item():g}"
        )
    batch = {TIMES: scaling.units.scaled_times(times), VALUES: scaling.units.scaled(values).float().nan_to_num(0.0)}
    if not batch[VALUES].isfinite().all():
        raise ValueError("values holds numbers that are infinite in float32")
    for name, scales in ((CONTROLS, scaling.controls), (STATICS, scaling.statics)):
        if name in raw:
            batch[name] = channels_last(scales, raw[name]).float()
    for name in (MASK, TARGET):
        batch[name] = observed & raw.get(name, observed)
    batch[START] = raw.get(START, torch.full((len(times),), -1)).long()
    if not (batch[START] >= -1).logical_and(batch[START] < offers["num_starts"]).all():
        raise ValueError(f"start must be from 0 to {offers['num_starts'] - 1}, or -1: none of the training's")
    return batch


def _check_times(times: Tensor, observed: Tensor) -> None:
    """They increase, but for the last one, which may be repeated where nothing was observed."""
    is_padding = (times == times[:, -1:]) & ~observed.any(dim=2)
    for sample, row in ((times.diff() <= 0) & ~is_padding[:, 1:]).nonzero().tolist()[:1]:
        before, after = times[sample, row : row + 2].tolist()
        hint = "; a shorter series repeats its last time, with values of NaN" if before == after else ""
        raise ValueError(
            f"times must increase: sample {sample} has {after:.12g} after {before:.12g}, at time {row + 1}{hint}"
        )


def fit_series(offers: Mapping[str, Any]) -> bool:
    """Whether what a checkpoint says of series is of one piece."""
    try:
        names = [len(offers[f"{name}_names"]) for name in ("channel", "control", "static")]
        counts = [offers[f"num_{name}s"] for name in ("channel", "control", "static")]
        scaling = SeriesScaling.of(offers)
        scaled = [
            count if each is None else len(each.mean)
            for count, each in zip(counts, (scaling.units, scaling.controls, scaling.statics), strict=True)
        ]
        others = [offers["time_name"], offers["time_unit"]]
        is_known = offers["calendar"] in KINDS
        is_whole = all(type(each) is int for each in (*counts, offers["num_starts"]))
    except (KeyError, TypeError, AttributeError):
        return False
    places = offers.get("position_channels", ())
    return (
        names == counts == scaled
        and is_whole
        and is_known
        and all(type(each) is str for each in others)
        and all(0 <= place < counts[0] for place in places)
    )

"""What arrays of a user say is to be told of each sample: classes, or numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from node_cli.datasets.labels import RawLabels, are_whole, listed
from node_cli.datasets.series.cells import MISSING, check_name, shown
from node_cli.series import CONTROLS, STATICS, TARGETS, TIMES, VALUES

DATA = ("inputs", TIMES, VALUES, CONTROLS, STATICS)  # an unknown array is no label if its name holds one of these
KINDS = {"b": "whole", "i": "whole", "u": "whole", "f": "numbers", "U": "words"}  # by `dtype.kind`


def array_labels(path: str, arrays: Mapping[str, np.ndarray], label: str | Sequence[str], count: int) -> RawLabels:
    """The labels in an array, or the numbers in several, of so many samples.

    Words and whole numbers of one array `(n,)` are classes. Other numbers, those of an array `(n, k)`, and all those of
    a list of arrays are values.

    Args:
        path: for messages.
        arrays: those of the file, labels among them; `<label>_columns` names the columns of `(n, k)`.
        label: the name of one array, or a list of them.
        count: how many samples there are.

    Raises:
        ValueError: a label is missing, or it is neither.
    """
    names = listed(label)
    for number, name in enumerate(names):
        if name in names[:number]:
            raise ValueError(f"dataset.label: {name} is there twice")
        check_labels(path, name, arrays[name], count)
    array = arrays[names[0]]
    if isinstance(label, str) and array.ndim == 1 and _are_classes(array):
        return _classes(path, label, array)
    found = [_values(path, name, arrays[name]) for name in names]
    columns = [
        column
        for name, values in zip(names, found, strict=True)
        for column in (column_names(path, arrays, name, values.shape[1]) if arrays[name].ndim > 1 else (name,))
    ]
    return RawLabels(torch.from_numpy(np.concatenate(found, axis=1)), target_names=tuple(columns))


def check_labels(path: str, name: str, array: np.ndarray, count: int) -> None:
    """Refuses what cannot be the labels of `count` samples, by its shape and dtype.

    Raises:
        ValueError: it is such an array.
    """
    if array.dtype.kind not in KINDS:
        raise ValueError(f"dataset.label: {path}: {name} has dtype {array.dtype}, must be words or numbers")
    if array.ndim not in (1, 2) or len(array) != count or 0 in array.shape:
        raise ValueError(
            f"dataset.label: {path}: {name} has shape {array.shape}, must be ({count},), one entry a sample, or, of "
            f"numbers, ({count}, k)"
        )


def other_arrays(path: str, names: Sequence[str], known: Sequence[str], label: str | Sequence[str] | None) -> list[str]:
    """Those arrays of a file that are not read: where one is a label, others may be labels as well.

    Args:
        path: for messages.
        names: all arrays of the file.
        known: those that may be there besides labels and `<label>_columns`.
        label: as `dataset.label`.

    Raises:
        ValueError: no label is asked for, or an array is called nearly as one that is known.
    """
    labels = listed(label)
    others = sorted({*names} - {*known, *labels, *(f"{name}_columns" for name in labels)})
    strange = [name for name in others if not labels or any(word in name for word in DATA)]
    if strange:
        shown = " ".join(", ".join(name[:40] for name in strange[:5]).split())
        raise ValueError(
            f"dataset.path: {path} holds {shown}; allowed are {', '.join(known)}, and what dataset.label names"
        )
    return others


def with_targets(raw: Mapping[str, np.ndarray], label: str | Sequence[str] | None) -> dict[str, np.ndarray]:
    """New data, whose labels are called as those of training were, or `targets`, or are not there."""
    names = listed(label)
    found = [raw[name] for name in names if name in raw]
    others = {name: array for name, array in raw.items() if name not in names}
    if not names or len(found) < len(names):
        return others
    return {**others, TARGETS: found[0] if isinstance(label, str) else np.column_stack(found)}


def column_names(
    path: str, arrays: Mapping[str, np.ndarray], name: str, count: int, default: str = ""
) -> tuple[str, ...]:
    """What the last dimension of an array is called: as `<name>_columns` says, or `default` and a number from 1 on.

    Raises:
        ValueError: there are not `count` different names.
    """
    given = f"{name}_columns"
    if given not in arrays:
        default = default or name
        return (default,) if count == 1 else tuple(f"{default}_{number}" for number in range(1, count + 1))
    return entry_names(path, given, arrays[given], count)


def entry_names(path: str, name: str, array: np.ndarray, count: int) -> tuple[str, ...]:
    """The `count` different names in an array of words or whole numbers.

    Raises:
        ValueError: it holds something else.
    """
    if array.shape != (count,) or KINDS.get(array.dtype.kind) not in ("words", "whole"):
        raise ValueError(
            f"dataset.path: {path}: {name} must be {count} words, got shape {array.shape} of {array.dtype}"
        )
    names = tuple(map(str, array.tolist()))
    for number, each in enumerate(names):
        try:
            check_name(each)
        except ValueError as error:
            raise ValueError(f"dataset.path: {path}: {name}[{number}]: {error}") from error
    if len(set(names)) < count:
        twice = next(each for number, each in enumerate(names) if each in names[:number])
        raise ValueError(f"dataset.path: {path}: {name} holds {shown(twice)} twice")
    return names


def _are_classes(array: np.ndarray) -> bool:
    """NaN is no whole number."""
    return KINDS[array.dtype.kind] != "numbers" or bool((array == np.floor(array)).all() and np.isfinite(array).all())


def _classes(path: str, label: str, array: np.ndarray) -> RawLabels:
    are_words = KINDS[array.dtype.kind] == "words"
    names = [entry if are_words else str(int(entry)) for entry in array.tolist()]
    for number, name in enumerate(names):
        try:
            if name.casefold() in MISSING:
                raise ValueError("the label is missing")
            check_name(name)
        except ValueError as error:
            raise ValueError(f"dataset.label: {path}: {label}[{number}]: {error}") from error
    classes = sorted(set(names), key=int if are_whole(names) else None)
    if len(classes) < 2:
        raise ValueError(f"dataset.label: {label} of {path} has one class, {classes[0]}; at least 2 are needed")
    places = {name: place for place, name in enumerate(classes)}
    return RawLabels(torch.tensor([places[name] for name in names]), class_names=tuple(classes))


def _values(path: str, name: str, array: np.ndarray) -> np.ndarray:
    """`(n, k)` in float64."""
    if KINDS[array.dtype.kind] == "words":
        raise ValueError(f"dataset.label: {path}: {name} holds words; numbers are wanted")
    values = array.astype(np.float64).reshape(len(array), -1)
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        row, column = wrong[0].tolist()
        raise ValueError(f"dataset.label: {path}: {name}[{row}] is {values[row, column]}; every sample needs a label")
    return values

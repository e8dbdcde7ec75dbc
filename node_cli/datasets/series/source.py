"""From what reads or computes series to a dataset with the keys of every dataset of series."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from typing import Any, get_type_hints

from node_cli.datasets.dataset import Dataset
from node_cli.datasets.series.assembling import assemble
from node_cli.datasets.series.keys import SeriesKeys
from node_cli.datasets.series.raw import RawSeries


def series_dataset(make: Callable[..., RawSeries]) -> Callable[..., Dataset]:
    """Makes a dataset of what `make` gives: it takes the keys of `make`, and those of every dataset of series."""
    names = [each.name for each in fields(SeriesKeys)]

    @wraps(make)
    def dataset(**keys: Any) -> Dataset:
        chosen = SeriesKeys(**{name: keys.pop(name) for name in names})
        return assemble(make(**keys), chosen)

    hints = {**get_type_hints(make), **get_type_hints(SeriesKeys), "return": Dataset}
    taken = (*inspect.signature(make).parameters, *names)
    parameters = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=hints[name]) for name in taken]
    dataset.__signature__ = inspect.Signature(parameters, return_annotation=Dataset)  # type: ignore[attr-defined]
    dataset.__annotations__ = hints
    return dataset

"""From what reads or computes series to a dataset with the keys of every dataset of series."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from typing import Any, TypeVar, get_type_hints

from node_cli.datasets.dataset import Dataset
from node_cli.datasets.series.assembling import assemble
from node_cli.datasets.series.keys import SeriesKeys
from node_cli.datasets.series.raw import RawSeries

Made = TypeVar("Made")
Keys = TypeVar("Keys")
Result = TypeVar("Result")


def series_dataset(make: Callable[..., RawSeries]) -> Callable[..., Dataset]:
    """A dataset of what `make` gives: it takes the keys of `make`, and those of every dataset of series."""
    return with_keys(make, SeriesKeys, assemble)


def with_keys(
    make: Callable[..., Made], kind: type[Keys], then: Callable[[Made, Keys], Result]
) -> Callable[..., Result]:
    """`then(make(...), kind(...))` as one function, which takes the keys of both by name.

    Args:
        make: what is called with its own keys.
        kind: a dataclass of further keys.
        then: makes the result of what `make` gave and of those.
    """
    names = [each.name for each in fields(kind)]  # type: ignore[arg-type]

    @wraps(make)
    def both(**keys: Any) -> Result:
        further = kind(**{name: keys.pop(name) for name in names})
        return then(make(**keys), further)

    hints = {**get_type_hints(make), **get_type_hints(kind), "return": get_type_hints(then)["return"]}
    taken = (*inspect.signature(make).parameters, *names)
    parameters = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=hints[name]) for name in taken]
    both.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    both.__annotations__ = hints
    return both

"""Words that change a search space: `tune.space.optimizer.lr.low=1e-3`. Hydra would take each dot for a level."""

from __future__ import annotations

from hydra.core.override_parser.overrides_parser import OverridesParser

from node_cli.config import ConfigError
from node_cli.tuning.search_space import CHOICES, RANGE

SPACE = "tune.space"


def with_space(overrides: list[str]) -> list[str]:
    """The overrides, those below `tune.space` as others that are merged into the space: `+tune.space={KEY: ...}`.

    `tune.space.KEY=...` sets or adds a key, `tune.space.KEY.low=...` one word of its range; ~KEY or null leaves it out.

    Raises:
        ConfigError: a word names several values, or none.
    """
    return [new for word in overrides for new in (_merged(word) if _is_of_space(word) else [word])]


def _merged(word: str) -> list[str]:
    override = OverridesParser.create().parse_overrides([word])[0]
    path, value = _key(word)[len(SPACE) + 1 :], word.partition("=")[2].strip()
    if override.is_sweep_override():
        raise ConfigError(f"{word} names several values: write {_key(word)}=[...] for choices")
    if not path:
        if not isinstance(override.value(), dict):
            raise ConfigError(f"{word} is no search space: write {SPACE}.KEY={{low: ..., high: ...}}")
        return [f"+{SPACE}={value}"]
    if not value and not override.is_delete():
        raise ConfigError(f"{word} has no value")
    key, _, last = path.rpartition(".")
    if key and last in {*RANGE, *CHOICES}:
        return [_add(key, f"{{{last}:{value or 'null'}}}")]
    return [_add(path, "null"), _add(path, value or "null")]  # null first: a list cannot be merged into a range


def _add(key: str, value: str) -> str:
    return f"+{SPACE}={{{key}:{value}}}"


def _is_of_space(word: str) -> bool:
    return f"{_key(word)}.".startswith(f"{SPACE}.")


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+~").strip()

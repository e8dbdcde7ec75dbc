"""Which keys a config has, and of each: what it may be, and which commands and runs it concerns. Needs no torch.

The YAML files say which keys a part has, and of what type: see `schema.py`. What such a value means, and its range, is
checked by the part that takes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from node_cli.references import problems_of_references

DEVICES = ("auto", "cpu", "cuda", "mps")
SPLITS = ("train", "val", "test")
PRECISIONS = ("float32", "float64", "bfloat16")
MAX_THREADS = 1024
MAX_SHOWN = 100
MAX_NAME, MAX_PATH = 255, 4000  # bytes that file systems take
TYPE_NAMES: Mapping[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "a group of keys",
    type(None): "null",
}


class ConfigError(ValueError):
    """A mistake of the user's; one line for each thing that is wrong."""


@dataclass(frozen=True)
class Key:
    """What is known of a key of the top level, or of a group with all that it holds.

    Attributes:
        must_be: what it must be, in words.
        holds: whether a value is that; of a key that `null` stands for something in one command alone, see `nullable`.
        may_change: a run that is resumed may have another value and still be the same run.
        is_hyperparameter: it has a part in the result, so HParams show it and reports compare runs by it.
        of_machine: it says where and how a run goes, not what is computed: others who run the same have their own.
        of_each_run: each job of a sweep, and each trial of a search, is given its own.
        from_run: a command that is given a run takes it from there.
        is_place: where data lie; they are held against their digest, wherever they are.
        is_part: of a group, whether its files describe what is built.
        several: of a group, whether several of its files may be chosen.
        or_list: a number by default, and a list will do.
        or_fraction: a whole number by default, and a fraction will do.
        is_open: it may hold any keys, which whoever reads them checks.
        follows: the key whose value it has unless it is set, as its YAML says.
    """

    must_be: str = ""
    holds: Callable[[Any], bool] = lambda value: True
    may_change: bool = False
    is_hyperparameter: bool = True
    of_machine: bool = False
    of_each_run: bool = False
    from_run: bool = False
    is_place: bool = False
    is_part: bool = True
    several: bool = False
    or_list: bool = False
    or_fraction: bool = False
    is_open: bool = False
    follows: str | None = None


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0


def _is_list_of(value: Any, holds: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(map(holds, value)) and len(set(value)) == len(value)


def is_path(value: Any) -> bool:
    """Whether a file system can have it: not empty, no name too long, all of it printable."""
    if not _is_text(value) or not value.isprintable() or len(value.encode()) > MAX_PATH:
        return False
    return all(len(name.encode()) <= MAX_NAME for name in Path(value).parts)


_FROM_RUN, _MAY_CHANGE = Key(from_run=True), Key(may_change=True)
_BY_THE_WAY = Key(may_change=True, is_hyperparameter=False)  # no part of what is trained
_SETUP = replace(_BY_THE_WAY, of_machine=True)
_OPEN_OF_MODELS = tuple(
    f"model.{key}" for key in ["equations", "parameters", "bounds", "fixed", "hidden", "velocities"]
)
_NAMES = "a list of different names, such as"

KEYS: Mapping[str, Key] = {
    "seed": replace(
        _FROM_RUN,
        must_be="a whole number, 0 or more and below 2**64",
        holds=lambda value: type(value) is int and 0 <= value < 2**64,
    ),
    "num_threads": replace(
        _SETUP,
        must_be=f"a whole number from 1 to {MAX_THREADS}, or null",
        holds=lambda value: value is None or (type(value) is int and 1 <= value <= MAX_THREADS),
    ),
    "device": Key(f"one of {', '.join(DEVICES)}", lambda value: value in DEVICES, may_change=True, of_machine=True),
    "precision": replace(_FROM_RUN, must_be=f"one of {', '.join(PRECISIONS)}", holds=lambda value: value in PRECISIONS),
    "run_dir": replace(
        _SETUP, must_be=f"a folder, of printable names up to {MAX_NAME} bytes", holds=is_path, of_each_run=True
    ),
    "resume": replace(
        _SETUP,
        must_be="a run folder, a checkpoint file, auto or null",
        holds=lambda value: value is None or isinstance(value, str),
        of_each_run=True,
    ),
    "init_from": Key("a run folder, a checkpoint file or null", lambda value: value is None or is_path(value)),
    "init_skip": Key(f"{_NAMES} [head]", lambda value: _is_list_of(value, _is_text)),
    "packages": replace(_SETUP, must_be=f"{_NAMES} [mylab]", holds=lambda value: _is_list_of(value, _is_text)),
    "run": Key("a run folder or a checkpoint file", is_path),
    "gradients": Key(f"{_NAMES} [direct,adjoint]", lambda value: bool(value) and _is_list_of(value, _is_text)),
    "beside": Key(f"{_NAMES} [torchdiffeq]", lambda value: _is_list_of(value, _is_text)),
    "rtols": Key(
        "different positive numbers, such as [1e-3,1e-5]",
        lambda value: bool(value) and _is_list_of(value, _is_positive),
    ),
    "checkpoint": Key("best or last", lambda value: value in ("best", "last")),
    "split": Key(f"one of {', '.join(SPLITS)}", lambda value: value in SPLITS),
    "out": Key(f"a file, of printable names up to {MAX_NAME} bytes", is_path),
    "batch_size": Key(
        "a whole number, 1 or more, or null",
        lambda value: value is None or (type(value) is int and 1 <= value < 2**31),
    ),
    "samples": Key(
        "a whole number, 1 or more, or null",
        lambda value: value is None or (type(value) is int and 1 <= value < 2**31),
    ),
    "label": Key("the name of a class, or null", lambda value: value is None or type(value) in (int, float, str, bool)),
    "until": Key("a number, a date or null", lambda value: value is None or type(value) in (int, float, str)),
    "figures": Key(),
    "dataset": _FROM_RUN,
    "dataset.path": replace(_FROM_RUN, may_change=True, is_place=True),
    "dataset.data_dir": replace(_FROM_RUN, may_change=True, is_place=True),
    "dataset.val": replace(_FROM_RUN, or_fraction=True),
    "dataset.test": replace(_FROM_RUN, or_fraction=True),
    "dataset.mirrors": replace(_FROM_RUN, may_change=True),
    "task": _FROM_RUN,
    "model": _FROM_RUN,
    **dict.fromkeys(_OPEN_OF_MODELS, replace(_FROM_RUN, is_open=True)),
    "vector_field": _FROM_RUN,
    "problem": Key(),
    "solver": Key(),
    "solver.atol": Key(or_list=True, follows="solver.rtol"),
    "solver.sync_steps": _MAY_CHANGE,
    "gradient": Key(),
    "gradient.atol": Key(follows="gradient.rtol"),
    "optimizer": Key(),
    "optimizer.lr": _MAY_CHANGE,
    "scheduler": Key(),
    "scheduler.on_resume": _MAY_CHANGE,
    "trainer": Key(),
    "trainer.epochs": _MAY_CHANGE,
    "trainer.max_steps": _MAY_CHANGE,
    "trainer.max_seconds": _MAY_CHANGE,
    "trainer.on_bad_step": _MAY_CHANGE,
    "trainer.spike_factor": _MAY_CHANGE,
    "trainer.max_skipped": _MAY_CHANGE,
    "trainer.patience": _MAY_CHANGE,
    "trainer.log_every_steps": _MAY_CHANGE,
    "trainer.histograms_every_epochs": _MAY_CHANGE,
    "trainer.figures_every_epochs": _MAY_CHANGE,
    "trainer.save_every_steps": _MAY_CHANGE,
    "trainer.keep": _MAY_CHANGE,
    "trainer.devices": _MAY_CHANGE,
    "trainer.max_restarts": _MAY_CHANGE,
    "audit": _BY_THE_WAY,
    "logger": replace(_SETUP, several=True),
    "sweep": _BY_THE_WAY,
    "experiment": Key(is_hyperparameter=False, is_part=False),  # what it sets is compared by itself
    "tune": Key(is_part=False),
    "tune.space": Key(is_part=False, is_open=True),
}
PLACES = tuple(name for name, key in KEYS.items() if key.is_place)
FOLLOWING = {name: key.follows for name, key in KEYS.items() if key.follows is not None}


def known_of(key: str) -> Key:
    """What is known of a key: its own entry, or that of the group that it lies in."""
    while key not in KEYS and "." in key:
        key = key.rpartition(".")[0]
    return KEYS.get(key, Key())


def wrong_values(cfg: Mapping[str, Any]) -> dict[str, str]:
    """A line for each key of the top level whose value cannot be."""
    nullable = ("run", "run_dir") if "problem" in cfg else ("split",) if "out" in cfg else ()
    return {
        name: f"{name} must be {known.must_be}, got {shown(cfg[name])}"
        for name, known in KEYS.items()
        if name in cfg and not known.holds(cfg[name]) and not (name in nullable and cfg[name] is None)
    }


def config_dir() -> str:
    """The folder of the YAML files: inside the package when installed, beside it in a checkout."""
    inside = Path(__file__).parent / "configs"
    return str(inside if inside.is_dir() else Path(__file__).parents[1] / "configs")


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """The config as plain containers, every interpolation resolved.

    Raises:
        ConfigError: something is missing, or refers to what is not there or to anything but keys and the time.
    """
    problems = problems_of_references(OmegaConf.to_container(cfg, resolve=False)) or list(_unresolved(cfg))
    if problems:
        raise ConfigError("\n".join(problems))
    container = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def _unresolved(node: Any, prefix: str = "") -> Iterator[str]:
    """A line for each value that is missing or cannot be resolved."""
    for key in node:
        full = f"{prefix}{key}"
        try:
            if OmegaConf.is_missing(node, key):
                yield f"{full} is required: set {full}=..."
            elif isinstance(node[key], DictConfig):
                yield from _unresolved(node[key], f"{full}.")
        except OmegaConfBaseException as error:
            yield f"{full} cannot be resolved: {str(error).splitlines()[0]}"


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """`key: old -> new` for each value that makes it another run.

    A key that only `new` has came with a later version and is no difference.
    """
    was, now = dict(leaves(old)), dict(leaves(new))
    return [
        f"{key}: {value} -> {now.get(key, '(gone)')}"
        for key, value in was.items()
        if now.get(key, "(gone)") != value and not known_of(key).may_change
    ]


def follows(key: str, values: Mapping[str, Any]) -> bool:
    """Whether a key has the value of another that it follows unless it is set."""
    leader = FOLLOWING.get(key)
    if leader is None or leader not in values or key not in values:
        return False
    own, other = values[key], values[leader]
    return bool(own == other or (own != own and other != other))  # as NaN does


def leaves(cfg: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """`("solver.rtol", 0.001)` and the like; an empty group is its own leaf."""
    for key, value in cfg.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def printable(text: str) -> str:
    """The same without what would move the cursor, turn the direction of a line, or cannot be encoded."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def shown(value: Any) -> str:
    """A value as Python writes it, in a length that a line has room for."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # of a number of thousands of digits
        return "one too long to show"
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}... ({len(text)} characters)"

"""What a config may say, checked before anything is built. Needs no torch.

The YAML files are the schema: a key exists if the chosen files have it, and its type is that of its default.
What a value means, and its range, is checked by the part that takes it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from node_cli.meant import meant
from node_cli.references import problems_of_references
from node_cli.rknet import of_rknet

DEVICES = ("auto", "cpu", "cuda", "mps")
SPLITS = ("train", "val", "test")
PRECISIONS = ("float32", "float64", "bfloat16")
LISTS_TOO = ("solver.atol",)  # a number by default, but a list will do
FOLLOWING = {"solver.atol": "solver.rtol", "gradient.atol": "gradient.rtol"}  # equal unless set, as the YAML says
OPEN = "tune.space."  # any keys: who reads them checks them
NO_PARTS = ("experiment", "tune")  # groups whose files describe nothing that is built
MAX_THREADS = 1024
LARGEST = 3.4e38  # what a float32 can be, about
MAX_SHOWN = 100
MAX_NAME, MAX_PATH = 255, 4000  # bytes that file systems take


class ConfigError(ValueError):
    """A mistake of the user's; one line for each thing that is wrong."""


def config_dir() -> str:
    """The folder of the YAML files: inside the package when installed, beside it in a checkout."""
    inside = Path(__file__).parent / "configs"
    return str(inside if inside.is_dir() else Path(__file__).parents[1] / "configs")


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """The config as plain containers, every interpolation resolved.

    Raises:
        ConfigError: something is missing, or refers to what is not there or to anything but keys and the time.
    """
    problems = problems_of_references(OmegaConf.to_container(cfg, resolve=False))
    if problems:
        raise ConfigError("\n".join(problems))
    _resolve_all(cfg)
    container = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def _resolve_all(node: Any, prefix: str = "") -> None:
    problems = []
    for key in node:
        full = f"{prefix}{key}"
        try:
            if OmegaConf.is_missing(node, key):
                problems.append(f"{full} is required: set {full}=...")
                continue
            value = node[key]
        except OmegaConfBaseException as error:
            problems.append(f"{full} cannot be resolved: {str(error).splitlines()[0]}")
            continue
        if isinstance(value, DictConfig):
            try:
                _resolve_all(value, f"{full}.")
            except ConfigError as error:
                problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))


@dataclass(frozen=True)
class Reference:
    """The chosen YAML files as they stand: the schema. `choices` names the file of each group that has one."""

    values: dict[str, Any]
    choices: dict[str, str]
    groups: set[str]


def unknown_key(key: str, reference: Reference) -> str:
    """One line about a key that no chosen file has: what was probably meant, and what there is."""
    if not key:
        return "a value without a key: write key=value"
    known = [path for path, _ in leaves(reference.values)]
    group = key.partition(".")[0]
    own = [path for path in known if path.startswith(f"{group}.") and not path.endswith("_")]
    if group in reference.groups - set(reference.choices) and not own:
        return f"{key} is set, but no {group}: choose one, {group}=NAME"
    hint = meant(key, known, reference.groups, config_dir())
    told = f"unknown key {key}: {hint}".rstrip()
    if group in reference.groups:
        chosen = f"{group}={reference.choices[group]}" if group in reference.choices else group
        return f"{told} {chosen} takes {', '.join(own) or 'no options'}"
    top = [name for name, value in reference.values.items() if not isinstance(value, Mapping)]
    return f"{told} there are {', '.join(top)} and the groups {', '.join(sorted(reference.groups))}"


def problems_of(cfg: Mapping[str, Any], reference: Reference) -> list[str]:
    """All that is wrong with a resolved config against the chosen files as they stand."""
    known, given = ({k: v for k, v in leaves(tree) if not k.startswith(OPEN)} for tree in (reference.values, cfg))
    known |= {key: known[leader] for key, leader in FOLLOWING.items() if key in known and leader in known}
    problems = [unknown_key(key, reference) for key in given if key not in known]
    problems += [
        f"{key} was removed, but it is needed: set it instead"
        for key in known
        if not any(path == key or path.startswith(f"{key}.") for path in given)
    ]
    set_apart = {key: value for key, value in given.items() if not follows(key, given)}  # a wrong value is told once
    problems += [
        f"{key} must be {_TYPE_NAMES[type(known[key])]}, got {shown(value)} ({_type_name(value)})"
        for key, value in set_apart.items()
        if key in known and not _same_type(value, known[key]) and not (key in LISTS_TOO and isinstance(value, list))
    ]
    problems += [
        f"{key} must be {range_}, got {shown(value)}" for key, value, range_ in out_of_range(set_apart.items())
    ]
    problems += _without_target(cfg, reference.choices) + of_rknet(cfg, reference.choices)
    top_level = top_level_problems(cfg)
    return [line for line in problems if line.partition(" ")[0] not in top_level] + list(top_level.values())


def out_of_range(given: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any, str]]:
    """The numbers that no part can take, with their keys and what they must be."""
    for key, value in given:
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, float) and not math.isfinite(number):
                yield key, number, "finite"
            elif isinstance(number, float) and abs(number) > LARGEST:
                yield key, number, f"at most {LARGEST:g} (the range of float32)"
            if isinstance(number, int) and key != "seed" and abs(number) >= 2**63:
                yield key, number, "a whole number of 64 bits"


def _without_target(cfg: Mapping[str, Any], choices: Mapping[str, str]) -> list[str]:
    """A line for each chosen file that names no class."""
    return [
        f"{key}: {group}={choices[group]} names no class: it needs a _target_, such as package.module.Class"
        for group in choices
        for key, node in parts_of(cfg, group).items()
        if not has_target(node)
    ]


def has_target(node: Any) -> bool:
    """Whether a node of a config describes a part."""
    return isinstance(node, dict) and isinstance(node.get("_target_"), str)


def parts_of(cfg: Mapping[str, Any], group: str) -> dict[str, Any]:
    """The nodes of a group by their keys: one part, but for loggers, of which there may be several."""
    if group in NO_PARTS:
        return {}
    node = cfg.get(group)
    if group == "logger" and isinstance(node, dict):
        return {f"{group}.{name}": part for name, part in node.items()}
    return {group: node}


def differences(old: Mapping[str, Any], new: Mapping[str, Any], except_for: tuple[str, ...]) -> list[str]:
    """`key: old -> new` for each value that differs, but for the keys (or groups) in `except_for`.

    A key that only `new` has came with a later version and is no difference.
    """
    was, now = dict(leaves(old)), dict(leaves(new))
    return [
        f"{key}: {value} -> {now.get(key, '(gone)')}"
        for key, value in was.items()
        if now.get(key, "(gone)") != value and not any(key == e or key.startswith(f"{e}.") for e in except_for)
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


_TYPE_NAMES: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "a group of keys",
    type(None): "null",
}


def _type_name(value: Any) -> str:
    return _TYPE_NAMES.get(type(value), type(value).__name__)


def _same_type(value: Any, default: Any) -> bool:
    """A null or a text default says nothing of the type: the part itself checks those, and whether null will do."""
    if value is None or default is None or isinstance(default, str):
        return not isinstance(value, (dict, list)) or default is None or type(value) is type(default)
    if isinstance(default, float) and not isinstance(value, bool):
        return isinstance(value, (int, float))
    return type(value) is type(default)


def top_level_problems(cfg: Mapping[str, Any]) -> dict[str, str]:
    """A line for each key of the top level whose value cannot be."""
    rules = {
        "seed": (lambda v: type(v) is int and 0 <= v < 2**64, "a whole number, 0 or more and below 2**64"),
        "num_threads": (
            lambda v: v is None or (type(v) is int and 1 <= v <= MAX_THREADS),
            f"a whole number from 1 to {MAX_THREADS}, or null",
        ),
        "device": (lambda v: v in DEVICES, f"one of {', '.join(DEVICES)}"),
        "precision": (lambda v: v in PRECISIONS, f"one of {', '.join(PRECISIONS)}"),
        "run_dir": (
            lambda v: (v is None and "problem" in cfg) or is_path(v),
            f"a folder, of printable names up to {MAX_NAME} bytes",
        ),
        "resume": (lambda v: v is None or isinstance(v, str), "a run folder, a checkpoint file, auto or null"),
        "init_from": (lambda v: v is None or is_path(v), "a run folder, a checkpoint file or null"),
        "init_skip": (lambda v: _is_list_of(v, _is_text), "a list of different names, such as [head]"),
        "run": (lambda v: (v is None and "problem" in cfg) or is_path(v), "a run folder or a checkpoint file"),
        "packages": (lambda v: _is_list_of(v, _is_text), "a list of different names, such as [mylab]"),
        "gradients": (lambda v: v and _is_list_of(v, _is_text), "a list of different names, such as [direct,adjoint]"),
        "beside": (lambda v: _is_list_of(v, _is_text), "a list of different names, such as [torchdiffeq]"),
        "rtols": (lambda v: v and _is_list_of(v, _is_positive), "different positive numbers, such as [1e-3,1e-5]"),
        "checkpoint": (lambda v: v in ("best", "last"), "best or last"),
        "split": (lambda v: v in SPLITS or (v is None and "out" in cfg), f"one of {', '.join(SPLITS)}"),
        "out": (is_path, f"a file, of printable names up to {MAX_NAME} bytes"),
        "batch_size": (
            lambda v: v is None or (type(v) is int and 1 <= v < 2**31),
            "a whole number, 1 or more, or null",
        ),
    }
    return {
        key: f"{key} must be {allowed}, got {shown(cfg[key])}"
        for key, (holds, allowed) in rules.items()
        if key in cfg and not holds(cfg[key])
    }


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


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def is_path(value: Any) -> bool:
    """Whether a file system can have it: not empty, no name too long, all of it printable."""
    if not _is_text(value) or not value.isprintable() or len(value.encode()) > MAX_PATH:
        return False
    return all(len(name.encode()) <= MAX_NAME for name in Path(value).parts)


def is_below(path: str, folder: str) -> bool:
    """Whether a path lies in the folder, by its words alone: links there are those of whoever owns the folder."""
    return Path(os.path.abspath(path)).is_relative_to(folder)


def _is_positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0


def _is_list_of(value: Any, holds: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(map(holds, value)) and len(set(value)) == len(value)

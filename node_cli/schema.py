"""The chosen YAML files are the schema: a key exists if they have it, and its type is that of its default."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node_cli.config import FOLLOWING, TYPE_NAMES, follows, known_of, leaves, shown, wrong_values
from node_cli.suggestions import suggestion

LARGEST = 3.4e38  # what a float32 can be, about


@dataclass(frozen=True)
class Reference:
    """The chosen YAML files as they stand: the schema."""

    values: dict[str, Any]
    choices: dict[str, str]  # the file of each group that has one
    groups: set[str]  # all of the command
    folders: Sequence[Path]  # where its YAML files lie


def unknown_key(key: str, reference: Reference) -> str:
    """One line about a key that no chosen file has: what was probably meant, and what there is."""
    if not key:
        return "a value without a key: write key=value"
    known = [path for path, _ in leaves(reference.values)]
    group = key.partition(".")[0]
    own = [path for path in known if path.startswith(f"{group}.") and not path.endswith("_")]
    if group in reference.groups - set(reference.choices) and not own:
        return f"{key} is set, but no {group}: choose one, {group}=NAME"
    hint = suggestion(key, known, reference.groups, reference.folders)
    message = f"unknown key {key}: {hint}".rstrip()
    if group in reference.groups:
        chosen = f"{group}={reference.choices[group]}" if group in reference.choices else group
        return f"{message} {chosen} takes {', '.join(own) or 'no options'}"
    top = [name for name, value in reference.values.items() if not isinstance(value, Mapping)]
    return f"{message} there are {', '.join(top)} and the groups {', '.join(sorted(reference.groups))}"


def problems_of(cfg: Mapping[str, Any], reference: Reference) -> list[str]:
    """All that is wrong with a resolved config against the chosen files as they stand."""
    known, given = ({k: v for k, v in leaves(tree) if not known_of(k).is_open} for tree in (reference.values, cfg))
    known |= {key: known[leader] for key, leader in FOLLOWING.items() if key in known and leader in known}
    problems = [unknown_key(key, reference) for key in given if key not in known]
    problems += [
        f"{key} was removed, but it is needed: set it instead"
        for key in known
        if not any(path == key or path.startswith(f"{key}.") for path in given)
    ]
    set_apart = {key: value for key, value in given.items() if not follows(key, given)}  # a mistake is one line
    problems += [
        f"{key} must be {TYPE_NAMES[type(known[key])]}, got {shown(value)} "
        f"({TYPE_NAMES.get(type(value), type(value).__name__)})"
        for key, value in set_apart.items()
        if key in known
        and not _same_type(value, known[key])
        and not (known_of(key).or_list and isinstance(value, list))
        and not (known_of(key).or_fraction and isinstance(value, float))
    ]
    problems += out_of_range(set_apart.items())
    problems += _without_target(cfg, reference.choices) + _of_rknet(cfg, reference.choices)
    top_level = wrong_values(cfg)
    return [line for line in problems if line.partition(" ")[0] not in top_level] + list(top_level.values())


def out_of_range(given: Iterable[tuple[str, Any]]) -> Iterator[str]:
    """A line for each number that no part can take."""
    for key, value in given:
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, float) and not math.isfinite(number):
                yield f"{key} must be finite, got {shown(number)}"
            elif isinstance(number, float) and abs(number) > LARGEST:
                yield f"{key} must be at most {LARGEST:g} (the range of float32), got {shown(number)}"
            if isinstance(number, int) and key != "seed" and abs(number) >= 2**63:
                yield f"{key} must be a whole number of 64 bits, got {shown(number)}"


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
    if not known_of(group).is_part:
        return {}
    node = cfg.get(group)
    if known_of(group).several and isinstance(node, dict):
        return {f"{group}.{name}": part for name, part in node.items()}
    return {group: node}


def _same_type(value: Any, default: Any) -> bool:
    """A null or a text default says nothing of the type: the part itself checks those, and whether null will do."""
    if value is None or default is None or isinstance(default, str):
        return not isinstance(value, (dict, list)) or default is None or type(value) is type(default)
    if isinstance(default, float) and not isinstance(value, bool):
        return isinstance(value, (int, float))
    return type(value) is type(default)


def _of_rknet(cfg: Mapping[str, Any], choices: Mapping[str, str]) -> list[str]:
    """A line for a solver or a gradient with which the paper's RK-Net would be an ODE-Net of the wrong name."""
    solver, gradient = cfg.get("solver"), choices.get("gradient")
    if choices.get("model") != "rknet" or not isinstance(solver, Mapping):
        return []
    chooses = solver.get("num_steps") is None and solver.get("step_size") is None
    problems = [f"solver={choices['solver']} chooses its steps"] if chooses and "solver" in choices else []
    problems += [f"gradient={gradient} solves backwards"] if gradient == "adjoint" else []
    return [f"model=rknet has fixed steps and their gradient, {text}: take model=odenet" for text in problems]

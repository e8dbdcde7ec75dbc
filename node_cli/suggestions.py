"""What a misspelt or misplaced key was meant to be. Reads the YAML of a group only once something is wrong."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from node_cli.config import ConfigError
from node_cli.yaml_file import read_yaml

MOST = 3  # keys that are named at once
SYNONYMS = {"learning_rate": "lr", "hidden": "width", "hidden_dim": "width", "hidden_size": "width", "gpus": "devices"}
OF_HYDRA = ("defaults", "hydra")  # in a primary config
ALIKE, VERY_ALIKE = 0.6, 0.8


def suggestion(key: str, known: Sequence[str], groups: Collection[str], folders: Sequence[Path]) -> str:
    """`did you mean ...?`, or where the key is to be had; nothing, if there is nothing like it.

    `known` are the keys of the chosen files; each of `folders` has a folder of YAML files for each group.
    """
    group, _, rest = key.partition(".")
    is_of_ours = group in groups or bool(_with_last(key, known) and not rest)
    others = [] if is_of_ours else _commands_with(group, folders[0])
    if others:
        names = " and ".join([*filter(None, [", ".join(others[:-1])]), others[-1]])
        return f"{names} {'has' if len(others) == 1 else 'have'} {group};"
    key = ".".join([*([group] if rest else []), *(SYNONYMS.get(part, part) for part in (rest or group).split("."))])
    if not rest:
        of_files = "" if key in groups else _in_other_files(groups, key, folders)
        top = [path for path in known if "." not in path]
        close = difflib.get_close_matches(key, [*top, *groups], n=1, cutoff=0.7) or _alike(key, known, VERY_ALIKE)
        return _did_you_mean(_with_last(key, known)) or of_files or _did_you_mean(close)
    if group not in groups:
        close = difflib.get_close_matches(group, groups, n=1)
        corrected = f"{close[0]}.{rest}" if close else ""
        return _did_you_mean([corrected] if corrected in known else _with_last(_last(key), known) or close)
    own = [path for path in known if path.startswith(f"{group}.")]
    elsewhere = _in_other_files([group], rest, folders)
    return (
        _did_you_mean(_alike(key, own, VERY_ALIKE))
        or elsewhere
        or _did_you_mean(_with_last(_last(key), known) or _alike(key, own, ALIKE))
    )


def _with_last(name: str, known: Sequence[str]) -> list[str]:
    return [path for path in known if _last(path) == name]


def _alike(key: str, known: Sequence[str], cutoff: float) -> list[str]:
    likely = [path for path in known if difflib.get_close_matches(_last(key), [_last(path)], cutoff=cutoff)]
    return difflib.get_close_matches(key, likely, n=1, cutoff=0.0)


def _did_you_mean(paths: Sequence[str]) -> str:
    return f"did you mean {' or '.join(paths[:MOST])}?" if paths else ""


def _in_other_files(groups: Collection[str], key: str, folders: Sequence[Path]) -> str:
    """`solver=rk4 has solver.num_steps`, of all files of the groups."""
    found = []
    for group in sorted(groups):
        files = [(path, folder) for folder in folders for path in sorted((folder / group).glob("*.yaml"))]
        names = [path.stem for path, folder in files if key in _keys_of(path, group, folder)]
        if names:
            found.append(f"{group}={', '.join(names)} {'has' if len(names) == 1 else 'have'} {group}.{key}")
    return f"{'; '.join(found)};" if found else ""


def _commands_with(key: str, folder: Path) -> list[str]:
    """The commands whose primary config has the key, or the group of this name."""
    commands = []
    for path in sorted(folder.glob("*.yaml")):
        content = read_yaml(path)
        groups = [name for entry in content["defaults"] if isinstance(entry, dict) for name in entry]
        if key in [name for name in (*content, *groups) if name not in OF_HYDRA]:
            commands.append(f"node-{path.stem}")
    return commands


def _keys_of(path: Path, group: str, folder: Path, seen: frozenset[Path] = frozenset()) -> set[str]:
    """The keys that a file of a group gives it, and those that it builds on; none of one that is damaged."""
    with suppress(ConfigError):
        content = read_yaml(path, inside=folder)
        inner: Any = content.get(group, content) if isinstance(content, dict) else None
        if isinstance(inner, dict):
            defaults = content.get("defaults")
            bases = [base for base in defaults if isinstance(base, str)] if isinstance(defaults, list) else []
            keys = {str(key) for key in inner if not str(key).startswith("_") and key != "defaults"}
            others = {path.with_name(f"{base}.yaml") for base in bases if base != "_self_"} - seen - {path}
            return keys.union(*(_keys_of(other, group, folder, seen | {path}) for other in others))
    return set()


def _last(key: str) -> str:
    return key.rpartition(".")[2]

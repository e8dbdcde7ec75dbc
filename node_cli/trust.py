"""What a config may have called: what the shipped YAML files name, each in its group, and packages named by the user.

A config may come from a stranger: a run folder, a folder of YAML files. Its `_target_`s are therefore held to a list,
and so are the keys beside them: a part is handed its folder, its processes or its model by the command, not by a file.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from node_cli.config import ConfigError, config_dir
from node_cli.references import nodes
from node_cli.yaml_file import read_yaml

OPTIMIZER = re.compile(r"torch\.optim\.[A-Z]\w*")  # any of torch's, with any of its keys
OF_THE_COMMAND = ("params", "_args_", "_convert_", "_recursive_")  # keys that an optimizer's config has not
TARGET, PARTIAL = "_target_", "_partial_"
_ASSIGNMENT = re.compile(r"^\s*(\w+):[ ]*([^\s#]*)", re.MULTILINE)


@cache
def shipped() -> Mapping[str, Mapping[str, frozenset[str]]]:
    """For each group the targets that its shipped files name, and the keys that they have in them."""
    groups: dict[str, dict[str, frozenset[str]]] = {}
    for path in Path(config_dir()).glob("*/*.yaml"):
        lines = _ASSIGNMENT.findall(path.read_text(encoding="utf-8"))
        for target in [value for key, value in lines if key == TARGET]:
            of_group = groups.setdefault(path.parent.name, {})
            of_group[target] = of_group.get(target, frozenset()) | {key for key, _ in lines}
    return groups


def choices(group: str) -> Mapping[str, str]:
    """The target of each shipped choice of a group that names one itself."""
    found = {
        path.stem: dict(_ASSIGNMENT.findall(path.read_text(encoding="utf-8")))
        for path in sorted(Path(config_dir(), group).glob("*.yaml"))
    }
    return {name: keys[TARGET] for name, keys in found.items() if TARGET in keys}


def choice(group: str, name: str) -> dict[str, Any]:
    """The keys of a shipped choice."""
    found: dict[str, Any] = read_yaml(Path(config_dir(), group, f"{name}.yaml"))
    return found


def defaults_of(group: str, target: str, key: str) -> list[Any]:
    """The value of a key in each shipped file of a group that names the target; empty: none does."""
    names = [name for name, of_choice in choices(group).items() if of_choice == target]
    return [choice(group, name).get(key) for name in names]


def untrusted_parts(cfg: Mapping[str, Any], packages: Sequence[str]) -> list[str]:
    """A line for each node of a resolved config that would call what is not to be called, or in another way."""
    return [
        line
        for path, node in nodes(cfg)
        if path and isinstance(node, Mapping) and TARGET in node
        for line in _problems(".".join(path), path[0], node, packages)
    ]


def require_trusted(key: str, node: dict[str, Any], packages: list[str]) -> None:
    """Raises ConfigError for one node: a command has checked it before, a caller in Python has not."""
    group, _, name = key.partition(".")
    problems = untrusted_parts({group: {name: node} if name else node}, packages)
    if problems:
        raise ConfigError("\n".join(problems))


def _problems(full: str, group: str, node: Mapping[str, Any], packages: Sequence[str]) -> Iterable[str]:
    target = str(node[TARGET])
    if lies_in(target, packages):
        return
    is_optimizer = group == "optimizer" and OPTIMIZER.fullmatch(target)
    if not is_optimizer and target not in shipped().get(group, ()):
        yield f"{full}.{TARGET}={target} is not allowed: {_allowed(target, group)}"
        return
    keys = None if OPTIMIZER.fullmatch(target) else shipped()[group][target]
    wrong = [key for key in node if (key in OF_THE_COMMAND if keys is None else key not in {*keys, PARTIAL})]
    yield from (f"{full}.{key} is not allowed: it is no key of {target} in configs/{group}/" for key in wrong)
    is_partial = keys is None or PARTIAL in keys
    if node.get(PARTIAL, False) is not is_partial:
        yield f"{full}.{PARTIAL} must be {str(is_partial).lower()}, as in configs/{group}/, got {node.get(PARTIAL)}"


def _allowed(target: str, group: str) -> str:
    package = target.partition(".")[0]
    named = "a package that you name on the command line"
    if package.isidentifier() and package not in (*sys.stdlib_module_names, "node_cli", "torch"):
        named += f" (packages=[{package}])"
    if group not in shipped():
        return f"only {named} may be called here"
    more = ", is one of torch.optim" if group == "optimizer" else ""
    return f"{'an' if group[0] in 'aeiou' else 'a'} {group} is what configs/{group}/ names{more}, or comes from {named}"


def lies_in(name: str, packages: Sequence[str]) -> bool:
    """Whether a dotted name lies in one of the packages."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def make_importable(packages: Sequence[str]) -> None:
    """From now on these packages, and nothing else, are found in the working folder as well."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, NamedPackages)]
    if packages:
        sys.meta_path.insert(0, NamedPackages(os.getcwd(), packages))


class NamedPackages(MetaPathFinder):
    """Finds the packages that the user has named in the working folder, and nothing else that lies there."""

    def __init__(self, folder: str, packages: Iterable[str]) -> None:
        self.folder, self.names = folder, {package.partition(".")[0] for package in packages}

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """As the import system asks for it."""
        if path is not None or fullname not in self.names:
            return None
        return PathFinder.find_spec(fullname, [self.folder])

"""What a YAML gives a part, held against the annotations of its parameters, and what the part says of it."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any

from node_cli.advice import in_keys
from node_cli.config import TYPE_NAMES, ConfigError, follows, shown
from node_cli.references import children, nodes
from node_cli.trust import defaults_of

OF_HYDRA = ("_target_", "_partial_", "_recursive_", "_convert_")  # of its own keys, those that a part may have
SEVERAL = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
NO_MEMORY = ("can't allocate memory", "Storage size calculation overflowed", "out of memory")


def require_effect(config: Mapping[str, Any], unused: Mapping[str, str]) -> None:
    """Refuses keys without effect, each with its reason, whose value is not that of a shipped YAML of the part."""
    for key, reason in unused.items():
        group, _, name = key.partition(".")
        if name not in config[group]:  # of a part of one's own
            continue
        value, usual = config[group][name], defaults_of(group, config[group]["_target_"], name)
        if usual and value not in usual:
            raise ConfigError(f"{key}={shown(value)} has no effect {reason}, or leave it out")


def check_arguments(group: str, node: dict[str, Any], target: Callable[..., Any], runtime: Collection[str]) -> None:
    """Holds every value of a part in YAML against the annotation of the parameter of `target` that it is for.

    `group` is the key of the part; `runtime` are the names of what `target` is given beside it.

    Raises:
        ConfigError: a line for each key that does not fit, or for what it cannot be given.
    """
    function = target.__init__ if inspect.isclass(target) else target
    annotations = typing.get_type_hints(target if is_dataclass(target) else function)
    parameters = inspect.signature(target).parameters
    given = {key: value for key, value in node.items() if not (key.startswith("_") and key.endswith("_"))}
    problems = [f"{group}.{key} is not taken by {node['_target_']}" for key in given if key not in parameters]
    full = {f"{group}.{key}": value for key, value in given.items()}
    problems += [
        f"{group}.{key} must be {_describe(annotations[key])}, got {shown(value)}"
        for key, value in given.items()
        if key in annotations and not _fits(value, annotations[key]) and not follows(f"{group}.{key}", full)
    ]
    takes_all = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    untaken = [] if takes_all else [name for name in runtime if name not in parameters]
    if untaken:
        problems.append(f"{group}: {node['_target_']} is given {', '.join(untaken)}, and has no such parameter")
    if runtime or not node.get("_partial_"):  # else the rest comes later
        problems += [
            f"{group}.{name} is missing: {node['_target_']} needs it"
            for name, parameter in parameters.items()
            if parameter.default is parameter.empty and parameter.kind not in SEVERAL
            if name not in given and name not in runtime
        ]
    problems += [f"{group}.{key} is not used here" for key in node if key.startswith("_") and key not in OF_HYDRA]
    if not isinstance(node.get("_partial_", False), bool):
        problems.append(f"{group}._partial_ must be true or false, got {shown(node['_partial_'])}")
    elif runtime and not node.get("_partial_"):
        problems.append(f"{group}: its YAML must say _partial_: true, for {', '.join(runtime)} come later")
    if problems:
        raise ConfigError("\n".join(problems))


def _fits(value: Any, annotation: Any) -> bool:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if origin is typing.Literal:
        return value in arguments
    if annotation is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation in (str, bool, type(None)):
        return isinstance(value, annotation)
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        return isinstance(value, list) and len(value) == len(arguments) and all(map(_fits, value, arguments))
    if origin in (list, tuple, Sequence) and arguments:
        return isinstance(value, list) and all(_fits(item, arguments[0]) for item in value)
    return True


def _describe(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_describe, arguments))
    if origin is tuple and Ellipsis not in arguments:
        return f"a list of {len(arguments)}"
    return TYPE_NAMES.get(origin or annotation, str(annotation))


def kinds(kind: Any) -> tuple[type, ...]:
    """A type, or those of a union."""
    return typing.get_args(kind) or (kind,)


def gives(part: Callable[..., Any], kind: Any) -> bool:
    """Whether a class, or what a function says that it returns, may be of a kind, which may be a union."""
    given = part if inspect.isclass(part) else typing.get_type_hints(part).get("return", object)
    return any(issubclass(each, kind) for each in kinds(given))


def lacking_arguments(asked: Mapping[str, inspect.Parameter], given: Container[str]) -> list[str]:
    """The names of the parameters that must be given, and are not."""
    return [
        name
        for name, parameter in asked.items()
        if name not in given and parameter.default is parameter.empty and parameter.kind not in SEVERAL
    ]


def check_plain(key: str, value: Any) -> None:
    """Refuses what `instantiate` would resolve once more, to a part perhaps that nobody has checked."""
    for path, node in nodes(value, (key,)):
        for name, child in children(node):
            if isinstance(node, dict) and not isinstance(name, str):
                raise ConfigError(f"{'.'.join(path)}: a key must be text, got {name!r}")
            if any(isinstance(text, str) and "${" in text for text in (name, child)):
                raise ConfigError(
                    f"{'.'.join(path)}.{name} must not refer to anything (with a dollar sign and a brace), "
                    f"got {shown(child)}"
                )


def refusal(group: str, node: Mapping[str, Any], error: BaseException | None) -> str | None:
    """What a part says of its keys by an exception; None: the exception is not about them.

    Too little memory is about them as well: they ask for so much.
    """
    asked_too_much = isinstance(error, RuntimeError) and any(text in str(error) for text in NO_MEMORY)
    if asked_too_much or isinstance(error, MemoryError):
        first_line = (str(error).splitlines() or ["no figure is given"])[0]
        return f"{group} needs more memory than there is ({first_line})"
    if isinstance(error, (ValueError, TypeError, FileNotFoundError)):
        return _under_full_key(group, node, in_keys(error))
    return None


def _under_full_key(group: str, node: Mapping[str, Any], message: str) -> str:
    """A part's refusal starts with its own key (`rtol must be ...`); what else it starts with is left as it is."""
    first = message.partition(" ")[0]
    if re.split(r"\W", message, maxsplit=1)[0] in node:
        return f"{group}.{message}"
    return message if first.startswith(group) or "." in first or "=" in first else f"{group}: {message}"


def takes(part: Callable[..., Any], given: Mapping[str, Any]) -> bool:
    """Whether all that a part asks for is given, and it does not refuse it, such as the shape of inputs."""
    asked = inspect.signature(part).parameters
    if lacking_arguments(asked, given):
        return False
    try:
        part(**{name: given[name] for name in asked if name in given})
    except ValueError:
        return False
    return True

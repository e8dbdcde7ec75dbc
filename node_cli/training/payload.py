"""Whether what a checkpoint holds can have been written by a run like this one, before any of it is taken up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import NoneType
from typing import Any

import torch
from torch import Tensor, nn

from node_cli.training.failures import state_beside_weights
from node_cli.training.state import TrainState

KEYS = ("model", "average", "best_weights", "optimizer", "state", "processes", "environment")
OTHER_MODEL = "has the weights of another model than the config of its run"
NUMBERS = (int, float)
COUNTS = ("epoch", "batch", "step", "num_skipped", "num_fallbacks", "num_bad", "best_epoch")


def refusal(
    payload: Mapping[str, Any],
    model: nn.Module,
    average: nn.Module | None,
    evaluated: nn.Module,
    optimizer: torch.optim.Optimizer,
    learning_rate: Mapping[str, Any],
) -> str:
    """Why a run of these parts cannot take up `payload`, in a few words that follow its name; empty: it can.

    `average` is the moving average of the weights, of a run that keeps one; `evaluated` is the model that is validated.
    """
    absent = [key for key in KEYS if key not in payload]
    if absent:
        return f"has no {absent[0]}"
    weights = {"model": model.state_dict(), "average": {} if average is None else average.state_dict()}
    if payload["best_weights"] != {}:
        weights["best_weights"] = evaluated.state_dict()
    for key, like in weights.items():
        if problem := unlike(payload[key], like, key):
            return f"{OTHER_MODEL}: {problem}"
    beside = {"random": {"cpu": torch.get_rng_state()}, "beside_weights": state_beside_weights(model)}
    problem = (
        wrong_optimizer(payload["optimizer"], optimizer)
        or wrong_state(payload["state"])
        or wrong_processes(payload["processes"], beside)
        or ("" if _are_texts(payload["environment"]) else "environment must hold text")
        or _wrong_rate(payload.get("learning_rate"), learning_rate)
    )
    return f"cannot be of this run: {problem}" if problem else ""


def wrong_processes(states: Any, like: Mapping[str, Any]) -> str:
    """A few words on what cannot be the states of processes, each `like` this; empty: nothing."""
    if not isinstance(states, list) or not states:
        return "processes is no list of states"
    for number, state in enumerate(states):
        random = state.get("random") if isinstance(state, Mapping) else None
        cuda = random.get("cuda") if isinstance(random, Mapping) else None
        if not isinstance(cuda, list) or not all(isinstance(v, Tensor) and v.dtype == torch.uint8 for v in cuda):
            return f"processes.{number}.random is no state of generators"
        own = {"random": {"cpu": state["random"].get("cpu")}, "beside_weights": state.get("beside_weights")}
        if problem := unlike(own, like, f"processes.{number}"):
            return problem
    return ""


def _wrong_rate(saved: Any, like: Mapping[str, Any]) -> str:
    """`saved` is None from earlier versions; the rates that stay are, too, where none do."""
    if saved is None:
        return ""
    held = saved.get("constant") if isinstance(saved, Mapping) else None
    if held is not None and not (isinstance(held, list) and _all_numbers(held)):
        return "learning_rate.constant must be numbers"
    without = {**saved, "constant": None} if isinstance(saved, Mapping) else saved
    return unlike(without, {**like, "constant": None}, "learning_rate")


def _are_texts(values: Any) -> bool:
    return isinstance(values, dict) and all(isinstance(value, str) for value in values.values())


def unlike(value: Any, like: Any, place: str) -> str:
    """A few words on the first thing in which `value` differs from `like` in kind: type, names, shape; empty: nothing.

    Tensors must be finite where those of `like` are; numbers may be any.
    """
    return next(_differences(value, like, place), "")


def _differences(value: Any, like: Any, place: str) -> Iterator[str]:
    if isinstance(like, Tensor):
        yield from _tensor_differences(value, like, place)
    elif isinstance(like, Mapping):
        if not isinstance(value, Mapping):
            yield f"{place} is of type {type(value).__name__}"
            return
        yield from (f"{place} has no {key}" for key in like if key not in value)
        yield from (f"{place} has {key!r}, which this run has not" for key in value if key not in like)
        for key in like:
            yield from _differences(value[key], like[key], f"{place}.{key}")
    elif isinstance(like, (list, tuple)):
        if not isinstance(value, (list, tuple)) or len(value) != len(like):
            yield f"{place} is no list of {len(like)}"
            return
        for number, (each, other) in enumerate(zip(value, like, strict=True)):
            yield from _differences(each, other, f"{place}.{number}")
    elif not (type(value) is type(like) or (isinstance(like, float) and type(value) in NUMBERS)):
        yield f"{place} is of type {type(value).__name__}"


def _tensor_differences(value: Any, like: Tensor, place: str) -> Iterator[str]:
    if not isinstance(value, Tensor) or value.layout != like.layout:
        yield f"{place} is no tensor like that of this run"
    elif value.shape != like.shape:
        yield f"size mismatch for {place}: {tuple(value.shape)} instead of {tuple(like.shape)}"
    elif value.dtype != like.dtype:
        yield f"{place} has the dtype {value.dtype} instead of {like.dtype}"
    elif value.is_floating_point() and like.isfinite().all() and not value.isfinite().all():
        yield f"{place} is not finite"


def wrong_state(state: Any) -> str:
    """A few words on what cannot be the state of a run; empty: nothing."""
    own = TrainState()
    if not isinstance(state, Mapping):
        return f"state is of type {type(state).__name__}"
    unknown = [key for key in state if key not in vars(own)]
    if unknown:
        return f"state has {unknown[0]!r}, which this version does not know"
    for key, default in vars(own).items():
        value = state.get(key, default)
        fits = value is None or type(value) in NUMBERS if default is None else unlike(value, default, "") == ""
        if isinstance(default, (list, dict)):
            fits = isinstance(value, type(default))
        if not fits or (key in COUNTS and value < 0):
            return f"state.{key} must be like {default!r}"
    for values in (state.get("sums", {}), *state.get("history", [])):
        has_tags = isinstance(values, dict) and all(isinstance(tag, str) for tag in values)
        if not has_tags or not _all_numbers(values.values()):
            return "state.history must hold numbers by their tags"
    sizes = state.get("step_sizes", {})
    if not all(isinstance(steps, list) and _all_numbers(steps) for steps in sizes.values()):
        return "state.step_sizes must hold lists of numbers"
    if not _all_numbers(state.get("best", [])):
        return "state.best must hold numbers"
    history = state.get("history", [])
    if len(history) != state.get("epoch", 0) or state.get("best_epoch", 0) > len(history):
        return f"state.history has {len(history)} epochs, state.epoch={state.get('epoch', 0)}"
    return ""


def _all_numbers(values: Any) -> bool:
    return all(type(value) in NUMBERS for value in values)


def wrong_optimizer(state: Any, optimizer: torch.optim.Optimizer) -> str:
    """A few words on what cannot be the state of this optimizer; empty: nothing."""
    own = optimizer.state_dict()
    if not isinstance(state, Mapping) or not isinstance(state.get("state"), Mapping):
        return "optimizer is no state of an optimizer"
    alike = _like(state.get("param_groups"), own["param_groups"])
    problem = unlike(alike, own["param_groups"], "optimizer.param_groups")
    if problem or [group["params"] for group in alike] != [group["params"] for group in own["param_groups"]]:
        return problem or "optimizer.param_groups has the parameters of another run"
    parameters = dict(enumerate(p for group in optimizer.param_groups for p in group["params"]))
    for number, values in state["state"].items():
        if number not in parameters or not isinstance(values, Mapping) or not values:
            return f"optimizer.state has {number!r}, which this run has not"
        for name, value in values.items():
            shape = parameters[number].shape
            if isinstance(value, Tensor) and value.shape not in (shape, torch.Size([])):
                return f"size mismatch for optimizer.state.{number}.{name}: {tuple(value.shape)} and {tuple(shape)}"
            if isinstance(value, Tensor) and not value.isfinite().all():
                return f"optimizer.state.{number}.{name} is not finite"
            if not isinstance(value, (Tensor, *NUMBERS, type(None))):
                return f"optimizer.state.{number}.{name} is of type {type(value).__name__}"
            if name == "step" and not float(value or 0) >= 0:
                return f"optimizer.state.{number}.step is below 0"
        first = next(iter(state["state"].values()))
        if {name: type(v) for name, v in values.items()} != {name: type(v) for name, v in first.items()}:
            return f"optimizer.state.{number} holds other things than that of the first parameter"
    return ""


def _like(groups: Any, own: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The groups with the keys of `own`, as another torch may know other flags; none where they are no groups."""
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        return []
    return [
        {key: group.get(key, v) for key, v in mine.items() if key in group or isinstance(v, (bool, NoneType))}
        for group, mine in zip(groups, own, strict=False)
    ]

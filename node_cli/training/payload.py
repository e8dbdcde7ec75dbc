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
IN_LISTS = ("old_dirs", "old_stps", "ro", "al")  # of LBFGS
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
    try:
        _check_optimizer(payload["optimizer"], optimizer)
        _check_state(payload["state"])
        _check_processes(payload["processes"], beside)
        texts = payload["environment"].values() if isinstance(payload["environment"], dict) else [None]
        _require(all(isinstance(text, str) for text in texts), "environment must hold text")
        _check_rate(payload.get("learning_rate"), learning_rate)
    except ValueError as error:
        return f"cannot be of this run: {error}"
    return ""


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise ValueError(problem)


def _require_like(value: Any, like: Any, place: str) -> None:
    problem = unlike(value, like, place)
    _require(not problem, problem)


def _check_processes(states: Any, like: Mapping[str, Any]) -> None:
    """Holds the state of each process against one `like` it."""
    _require(isinstance(states, list) and len(states) > 0, "processes is no list of states")
    for number, state in enumerate(states):
        random = state.get("random") if isinstance(state, Mapping) else None
        cuda = random.get("cuda") if isinstance(random, Mapping) else None
        are_states = isinstance(cuda, list) and all(isinstance(v, Tensor) and v.dtype == torch.uint8 for v in cuda)
        _require(are_states, f"processes.{number}.random is no state of generators")
        own = {"random": {"cpu": state["random"].get("cpu")}, "beside_weights": state.get("beside_weights")}
        _require_like(own, like, f"processes.{number}")


def _check_rate(saved: Any, like: Mapping[str, Any]) -> None:
    """`saved` is None from earlier versions; the rates that stay are, too, where none do."""
    if saved is None:
        return
    held = saved.get("constant") if isinstance(saved, Mapping) else None
    are_rates = held is None or (isinstance(held, list) and _all_numbers(held))
    _require(are_rates, "learning_rate.constant must be numbers")
    without = {**saved, "constant": None} if isinstance(saved, Mapping) else saved
    _require_like(without, {**like, "constant": None}, "learning_rate")


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


def _check_state(state: Any) -> None:
    own = vars(TrainState())
    _require(isinstance(state, Mapping), f"state is of type {type(state).__name__}")
    for key in state:
        _require(key in own, f"state has {key!r}, which this version does not know")
    filled = own | dict(state)
    for key, default in own.items():
        value = filled[key]
        fits = value is None or type(value) in NUMBERS if default is None else unlike(value, default, "") == ""
        if isinstance(default, (list, dict)):
            fits = isinstance(value, type(default))
        _require(fits and not (key in COUNTS and value < 0), f"state.{key} must be like {default!r}")
    for values in (filled["sums"], *filled["history"]):
        has_tags = isinstance(values, dict) and all(isinstance(tag, str) for tag in values)
        _require(has_tags and _all_numbers(values.values()), "state.history must hold numbers by their tags")
    for sizes in filled["step_sizes"].values():
        are_sizes = isinstance(sizes, list) and _all_numbers(sizes)
        _require(are_sizes, "state.step_sizes must hold lists of numbers")
    _require(_all_numbers(filled["best"]), "state.best must hold numbers")
    epochs, count = filled["epoch"], len(filled["history"])
    fits = count == epochs and filled["best_epoch"] <= count
    _require(fits, f"state.history has {count} epochs, state.epoch={epochs}")


def _all_numbers(values: Any) -> bool:
    return all(type(value) in NUMBERS for value in values)


def _check_optimizer(state: Any, optimizer: torch.optim.Optimizer) -> None:
    own = optimizer.state_dict()
    is_state = isinstance(state, Mapping) and isinstance(state.get("state"), Mapping)
    _require(is_state, "optimizer is no state of an optimizer")
    alike = _like(state.get("param_groups"), own["param_groups"])
    _require_like(alike, own["param_groups"], "optimizer.param_groups")
    theirs, ours = ([group["params"] for group in groups] for groups in (alike, own["param_groups"]))
    _require(theirs == ours, "optimizer.param_groups has the parameters of another run")
    parameters = dict(enumerate(p for group in optimizer.param_groups for p in group["params"]))
    whole = torch.Size([sum(p.numel() for p in parameters.values())])  # LBFGS takes all parameters as one vector
    for number, values in state["state"].items():
        is_known = number in parameters and isinstance(values, Mapping) and len(values) > 0
        _require(is_known, f"optimizer.state has {number!r}, which this run has not")
        shape = parameters[number].shape
        for name, entry in values.items():
            place = f"optimizer.state.{number}.{name}"
            for value in entry if name in IN_LISTS and isinstance(entry, list) else [entry]:
                is_plain = isinstance(value, (Tensor, *NUMBERS, NoneType))
                _require(is_plain, f"{place} is of type {type(value).__name__}")
                if isinstance(value, Tensor):
                    sizes = f"{tuple(value.shape)} and {tuple(shape)}"
                    _require(value.shape in (shape, torch.Size([]), whole), f"size mismatch for {place}: {sizes}")
                    _require(bool(value.isfinite().all()), f"{place} is not finite")
            _require(name != "step" or float(entry or 0) >= 0, f"{place} is below 0")
        of_first = next(iter(state["state"].values()))
        first, kinds = ({name: type(v) for name, v in each.items()} for each in (of_first, values))
        _require(kinds == first, f"optimizer.state.{number} holds other things than that of the first parameter")


def _like(groups: Any, own: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The groups with the keys of `own`, as another torch may know other flags; none where they are no groups."""
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        return []
    return [
        {key: group.get(key, v) for key, v in mine.items() if key in group or isinstance(v, (bool, NoneType))}
        for group, mine in zip(groups, own, strict=False)
    ]

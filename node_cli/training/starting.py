"""Where training starts: the weights of another run, and parts of the model that stay as they are."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from node_cli.config import ConfigError
from node_cli.training.checkpoint import CheckpointError, evaluated_weights, read_checkpoint

MAX_NAMED = 3  # tensors that one line names


def start_from(model: nn.Module, run_or_checkpoint: str, skip: Sequence[str]) -> str:
    """Gives `model` the weights of a run's best validation, or of one checkpoint, but for the parts in `skip`.

    Step sizes that a solver has carried over are not weights and stay behind. Returns a line for the log.

    Raises:
        ConfigError: there is no such checkpoint, a part outside `skip` does not fit, or `skip` has an unknown name.
    """
    path = Path(run_or_checkpoint)
    path = path if path.suffix == ".pt" else path / "checkpoints" / "best.pt"
    try:
        theirs = _without_step_sizes(evaluated_weights(read_checkpoint(path)))
    except CheckpointError as error:
        text = str(error)
        raise ConfigError(f"init_from: {text if str(path) in text else f'{path} {text}'}") from error
    own = _without_step_sizes(model.state_dict())
    names = {**own, **theirs}
    _require_known("init_skip", skip, names)
    unfit = {name: why for name in names if not _lies_in(name, skip) and (why := _mismatch(own, theirs, name))}
    if unfit:
        reasons = [f"{name} {why}" for name, why in unfit.items()]
        more = f" and {len(reasons) - MAX_NAMED} more" if len(reasons) > MAX_NAMED else ""
        anew = ",".join([*skip, *_largest_parts(unfit, names)])
        raise ConfigError(
            f"init_from: the weights in {path} do not fit this model: {', '.join(reasons[:MAX_NAMED])}{more}; list the "
            f"parts that are to start anew: 'init_skip=[{anew}]'"
        )
    taken = {name: theirs[name] for name in own if not _lies_in(name, skip)}
    if not taken:
        raise ConfigError(f"init_skip: nothing of {path} is left: list fewer parts, or leave init_from out")
    model.load_state_dict(taken, strict=False)
    anew = f", but for {', '.join(skip)}" if skip else ""
    return f"starting from the weights in {path}{anew}"


def freeze(model: nn.Module, names: Sequence[str]) -> list[nn.Parameter]:
    """Takes these modules or single parameters out of what training changes; returns the parameters that are left.

    Raises:
        ConfigError: a name is unknown, or nothing is left.
    """
    _require_known("trainer.freeze", names, [*model.state_dict(), *(name for name, _ in model.named_modules())])
    frozen = [p for name, p in model.named_parameters(remove_duplicate=False) if _lies_in(name, names)]
    for parameter in frozen:
        parameter.requires_grad_(False)
    held = {id(parameter) for parameter in frozen}
    left = [parameter for parameter in model.parameters() if id(parameter) not in held]
    if not left:
        given = ", ".join(names)
        raise ConfigError(f"trainer.freeze must leave something to train, got {given}, which is all of the model")
    return left


def set_to_train(model: nn.Module, frozen: Sequence[str]) -> None:
    """Training mode, but for the frozen parts: their running means stay as they are, and nothing drops out in them."""
    model.train()
    for name, module in model.named_modules():
        if name in frozen:
            module.eval()


def _require_known(key: str, names: Sequence[Any], known: Iterable[str]) -> None:
    """Raises ConfigError for a name that is neither one of the tensors and modules nor the beginning of one."""
    known = [name for name in known if name]
    for name in names:
        if not isinstance(name, str) or not any(_lies_in(each, [name]) for each in known):
            tops = list(dict.fromkeys(each.partition(".")[0] for each in known))
            raise ConfigError(
                f"{key} must name parts of the model, got {name!r}: there are {', '.join(tops)}, and what they hold, "
                f"such as {max(known, key=lambda each: each.count('.'))}"
            )


def _lies_in(name: str, parts: Collection[str]) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def _mismatch(own: Mapping[str, Tensor], theirs: Mapping[str, Any], name: str) -> str:
    if name not in own or name not in theirs:
        return f"is only {'there' if name in theirs else 'here'}"
    mine, other = own[name], theirs[name]
    if not isinstance(other, Tensor) or other.layout != mine.layout:
        return "is not a tensor there"
    if other.shape != mine.shape:
        return f"is {tuple(other.shape)} there and {tuple(mine.shape)} here"
    if other.dtype != mine.dtype and not (other.is_floating_point() and mine.is_floating_point()):
        return f"is {other.dtype} there and {mine.dtype} here"
    return "" if torch.isfinite(other).all() else "is not finite there"


def _largest_parts(unfit: Collection[str], names: Iterable[str]) -> list[str]:
    """The fewest parts that hold all of `unfit`, and nothing else of `names`."""
    fit = [name for name in names if name not in unfit]
    parts: list[str] = []
    for name in unfit:
        pieces = name.split(".")
        prefixes = [".".join(pieces[: n + 1]) for n in range(len(pieces))]
        parts.append(next(p for p in prefixes if not any(_lies_in(other, [p]) for other in fit)))
    return list(dict.fromkeys(parts))


def _without_step_sizes(state: Mapping[str, Any]) -> dict[str, Any]:
    return {str(name): value for name, value in state.items() if not str(name).endswith("_extra_state")}

"""How well data determine the parameters of a model: Gauss-Newton covariance, and intervals from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from node_cli.series import SeriesModel

MOST_PARAMETERS = 100
MOST_RESIDUALS = 2000
TWO_SIDED = 1.96  # std of a normal distribution within which 95 % lie
UNCERTAIN = 1.0  # a std of more than this share of a value: the data do not identify it


def parameter_intervals(model: SeriesModel, residuals: Callable[[], Tensor]) -> dict[str, dict[str, Any]]:
    """Each of the model's named values with its std and its 95 % interval.

    The covariance of all trained parameters is `s**2 pinv(J'J)`, where J are the slopes of the residuals `(values,)`
    and `s**2` their sum of squares over their number less that of the parameters; a direction that no residual depends
    on has no bound. `is_identified` is False where the std is larger than the value, or there is none. What depends on
    no trained parameter has its value alone, and so has everything in models of more than 100 parameters, or for more
    than 2,000 residuals.

    Source: Seber and Wild 1989, *Nonlinear Regression*, section 5.1.
    """
    with torch.enable_grad():
        named = dict(model.named_values())
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        count = sum(parameter.numel() for parameter in parameters)
        values: dict[str, dict[str, Any]] = {name: {"value": value.item()} for name, value in named.items()}
        if not 0 < count <= MOST_PARAMETERS:
            return values
        errors = residuals()
        if not count < len(errors) <= MOST_RESIDUALS:
            return values
        slopes = _jacobian(errors, parameters)
        of_named = _jacobian(torch.stack(list(named.values())), parameters)
    variance = errors.detach().double().square().sum() / (len(errors) - count)
    singular, right = torch.linalg.svd(slopes, full_matrices=True)[1:]
    is_bound = singular > singular.max() * len(errors) * torch.finfo(torch.float32).eps
    inverse = torch.where(is_bound, 1 / singular, 0.0)
    std = (variance * ((of_named @ right.T) * inverse).square().sum(1)).sqrt()
    loose = ((of_named @ right.T) * ~is_bound).abs().sum(1) > 1e-6 * of_named.abs().sum(1)
    is_constant = (of_named == 0).all(1)  # as a pruned coefficient is: there is nothing to be uncertain of
    for value, each, is_loose, is_fixed in zip(
        values.values(), *map(Tensor.tolist, (std, loose, is_constant)), strict=True
    ):
        if is_fixed:
            continue
        low, high = (value["value"] + sign * TWO_SIDED * each for sign in (-1, 1))
        found = (None, None, None) if is_loose else (each, low, high)
        value |= dict(zip(("std", "low", "high"), found, strict=True))
        value["is_identified"] = not is_loose and each <= UNCERTAIN * abs(value["value"])
    return values


def in_words(found: Mapping[str, Any]) -> str:
    """`0.5402 (0.4251 to 0.6552)`, the 95 % interval of a value; or that the data do not identify it."""
    value = f"{found['value']:.4g}"
    if "std" not in found:
        return value
    interval = f" ({found['low']:.4g} to {found['high']:.4g})" if found["std"] is not None else ""
    return f"{value}{interval}{'' if found['is_identified'] else ', which the data do not identify'}"


def _jacobian(outputs: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """`(outputs, parameters)` in float64."""
    rows = []
    for output in outputs:
        slopes = torch.autograd.grad(output, parameters, retain_graph=True, allow_unused=True)
        flat = [torch.zeros_like(p) if slope is None else slope for slope, p in zip(slopes, parameters, strict=True)]
        rows.append(torch.cat([each.reshape(-1) for each in flat]).double())
    return torch.stack(rows)

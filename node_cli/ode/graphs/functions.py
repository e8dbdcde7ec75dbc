"""The compiled functions that a solve consists of: the first slope and step, a step, its outputs, and its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from node_cli.ode.control import Norm, Tolerance, choose_first_step
from node_cli.ode.graphs.examples import Examples, Run
from node_cli.ode.states import as_column
from node_cli.ode.stepping import plain_stages
from node_cli.ode.tableaus import Tableau, polynomial


class StepGraphs:
    """The functions of one method and norm, each compiled when it is first asked for.

    They take the `ends` of a step, float64 `(2,)`, or `(2, batch)` with own times, states, and, last of all, the inputs
    of the vector field. A tolerance is two tensors, rtol and atol; `norm` is None where there is none.
    """

    def __init__(self, examples: Examples, tableau: Tableau, norm: Norm | None) -> None:
        self.tableau = tableau
        self._examples = examples
        self._norm = norm
        self._pulls: dict[Any, Run] = {}

    @cached_property
    def start(self) -> Run:
        """Of (ends, y): the slope at the first end."""

        def start(ends: Tensor, y: Tensor, *inputs: Tensor) -> tuple[Tensor]:
            return (self._examples.field.slope(inputs)(as_column(ends[0], y).to(y.dtype), y).contiguous(),)

        return self._examples.compiled(start, lambda: [self._examples.ends(), self._examples.y()])

    @cached_property
    def first_step(self) -> Run:
        """Of (y, its slope, longest, rtol, atol): see `choose_first_step`."""
        norm, order = self._norm, self.tableau.error_order
        assert norm is not None
        assert order is not None

        def first_step(y: Tensor, slope: Tensor, longest: Tensor, rtol: Tensor, atol: Tensor) -> tuple[Tensor]:
            return (choose_first_step(Tolerance(rtol, atol, norm), order, y, slope, longest),)

        def examples() -> list[Any]:
            y = self._examples.y()  # one number for all, or one for each sample, as the norm has
            return [y, self._examples.y(), torch.empty_like(norm(y), dtype=torch.float64), *self._examples.tolerance()]

        return self._examples.compiled(first_step, examples, has_inputs=False)

    @cached_property
    def attempt(self) -> Run:
        """Of (ends, y, its slope, rtol, atol): the end of a step, its error ratio if there is a norm, later stages."""
        tableau, norm, num_bounds = self.tableau, self._norm, self._examples.num_bounds

        def attempt(ends: Tensor, y: Tensor, slope: Tensor, *more: Tensor) -> tuple[Tensor, ...]:
            bounds, inputs = more[:num_bounds], more[num_bounds:]
            t0, t1 = as_column(ends[0], y), as_column(ends[1], y)
            y1, stages = plain_stages(tableau, self._examples.field.slope(inputs))(t0, t1, y, slope)
            results = [y1, *stages[1:]]
            if norm is not None:
                assert tableau.error_weights is not None
                weighted = [w * k for w, k in zip(tableau.error_weights, stages, strict=True) if w]
                error = (t1 - t0).to(y.dtype) * sum(weighted[1:], weighted[0])
                results.insert(1, Tolerance(bounds[0], bounds[1], norm).ratio(error, y, y1))
            return tuple(result.contiguous() for result in results)

        def examples() -> list[Any]:
            return [self._examples.ends(), self._examples.y(), self._examples.y(), *self._examples.tolerance()]

        return self._examples.compiled(attempt, examples)

    @cached_property
    def outputs(self) -> Run:
        """Of (ends, y, all stages, theta, with own times the samples): states at shares theta of a step, of each."""
        num_stages = self.tableau.num_stages

        def outputs(ends: Tensor, y: Tensor, *more: Tensor) -> tuple[Tensor]:
            stages, where = more[:num_stages], more[num_stages:]
            return (interpolated(self.tableau, ends[1] - ends[0], y, stages, *where).contiguous(),)

        def examples() -> list[Any]:
            return [
                self._examples.ends(),
                *[self._examples.y() for _ in range(num_stages + 1)],
                *self._examples.outputs(),
            ]

        return self._examples.compiled(outputs, examples, has_inputs=False)

    def pull(self, *, has_outputs: bool, with_times: bool, with_mask: bool) -> Run:
        """A step backwards: it is run again, and pulled back.

        Of (ends, y, the state at the end, its cotangent, [mask `(batch, 1, ...)` of those that moved], [cotangents of
        the outputs, theta, with own times the samples]): the cotangents of y, of the inputs that have a gradient, [of
        the ends, and of theta]; then how far the end is from what it was, and how large it was.
        """
        key = (has_outputs, with_times, with_mask)
        if key not in self._pulls:
            self._pulls[key] = self._new_pull(*key)
        return self._pulls[key]

    def _new_pull(self, has_outputs: bool, with_times: bool, with_mask: bool) -> Run:
        num_outputs = has_outputs * (2 + self._examples.has_own_times)

        def pull(ends: Tensor, y: Tensor, end: Tensor, grad: Tensor, *more: Tensor) -> tuple[Tensor, ...]:
            mask, more = (more[0], more[1:]) if with_mask else (None, more)
            outputs, inputs = more[:num_outputs], more[num_outputs:]
            grad_end = grad if mask is None else torch.where(mask, grad, 0)
            with torch.enable_grad():
                y = y.detach().requires_grad_()
                inputs = tuple(tensor.detach().requires_grad_(tensor.requires_grad) for tensor in inputs)
                wanted = [y, *(tensor for tensor in inputs if tensor.requires_grad)]
                theta = outputs[1] if outputs else None
                if with_times:
                    ends = ends.detach().requires_grad_()
                    wanted.append(ends)
                    if theta is not None:
                        theta = theta.detach().requires_grad_()
                        wanted.append(theta)
                slope, t0, t1 = self._examples.field.slope(inputs), as_column(ends[0], y), as_column(ends[1], y)
                step = plain_stages(self.tableau, slope)
                y1, stages = step(t0, t1, y, slope(t0.to(y.dtype), y), has_outputs)
                results, cotangents = [y1], [grad_end]
                if theta is not None:
                    results.append(interpolated(self.tableau, ends[1] - ends[0], y, stages, theta, *outputs[2:]))
                    cotangents.append(outputs[0])
                grads = torch.autograd.grad(results, wanted, cotangents, allow_unused=True, materialize_grads=True)
            grad_y, *others = grads
            if mask is not None:
                grad_y, y1 = grad_y + torch.where(mask, 0, grad), torch.where(mask, y1, y)
            change = [(y1.detach() - end).abs().amax(), end.abs().amax()]
            return (grad_y.contiguous(), *(grad.contiguous() for grad in others), *change)

        def examples() -> list[Any]:
            mask = [self._examples.mask()] if with_mask else []
            outputs = self._examples.outputs() if has_outputs else []
            if outputs:
                outputs.insert(0, self._examples.states_at(outputs[0]))
            return [self._examples.ends(), *[self._examples.y() for _ in range(3)], *mask, *outputs]

        return self._examples.compiled(pull, examples)


def interpolated(
    tableau: Tableau, h: Tensor, y: Tensor, stages: Sequence[Tensor], theta: Tensor, *sample: Tensor
) -> Tensor:
    """The states at shares theta `(outputs,)` of a step of length h, of each with own times by its `sample`."""
    h, dims = as_column(h.to(y.dtype), y), (1,) * (y.dim() - len(sample))
    terms = []
    for row, stage in zip(tableau.dense or (), stages, strict=True):
        if any(row):
            weight = (theta * polynomial(row, theta)).to(y.dtype).view(-1, *dims)
            terms.append(weight * (stage[sample[0]] if sample else stage.unsqueeze(0)))
    change: Tensor = sum(terms[1:], terms[0])
    if sample:
        return y[sample[0]] + h[sample[0]] * change
    return y.unsqueeze(0) + h * change

"""The compiled functions that a solve consists of: the first slope and step, a step, its outputs, and its gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from node_cli.ode.control import Norm, Tolerance, choose_first_step
from node_cli.ode.graphs.capture import FieldGraph
from node_cli.ode.graphs.lowering import NotWhole, lowered
from node_cli.ode.states import as_column
from node_cli.ode.stepping import plain_stages
from node_cli.ode.tableaus import Tableau, polynomial

Run = Callable[[list[Any]], tuple[Tensor, ...]]  # empties the list that it is given


class StepGraphs:
    """The functions of one method and norm, each compiled when it is first asked for.

    They take the `ends` of a step, float64 `(2,)`, or `(2, batch)` with `has_own_times`, states, and, last of all, the
    inputs of the vector field. A tolerance is two tensors, rtol and atol, of these shapes; `norm` is None where there
    is none.
    """

    def __init__(
        self,
        field: FieldGraph,
        tableau: Tableau,
        norm: Norm | None,
        tolerance_shapes: tuple[torch.Size, ...],
        *,
        has_own_times: bool,
    ) -> None:
        self.field = field
        self.tableau = tableau
        self._norm = norm
        self._shapes = tolerance_shapes
        self._has_own_times = has_own_times
        self._pulls: dict[Any, Run] = {}

    @cached_property
    def start(self) -> Run:
        """Of (ends, y): the slope at the first end."""

        def start(ends: Tensor, y: Tensor, *inputs: Tensor) -> tuple[Tensor]:
            return (self.field.slope(inputs)(as_column(ends[0], y).to(y.dtype), y).contiguous(),)

        return self._compiled(start, lambda: [self._like_ends(), self._like_y()])

    @cached_property
    def first_step(self) -> Run:
        """Of (y, its slope, longest, rtol, atol): see `choose_first_step`."""
        norm, order = self._norm, self.tableau.error_order
        assert norm is not None
        assert order is not None

        def first_step(y: Tensor, slope: Tensor, longest: Tensor, rtol: Tensor, atol: Tensor) -> tuple[Tensor]:
            return (choose_first_step(Tolerance(rtol, atol, norm), order, y, slope, longest),)

        def examples() -> list[Any]:
            y = self._like_y()  # one number for all, or one for each sample, as the norm has
            return [y, self._like_y(), torch.empty_like(norm(y), dtype=torch.float64), *self._like_tolerance()]

        return self._compiled(first_step, examples, has_inputs=False)

    @cached_property
    def attempt(self) -> Run:
        """Of (ends, y, its slope, rtol, atol): the end of a step, its error ratio if there is a norm, later stages."""
        tableau, norm, num_bounds = self.tableau, self._norm, len(self._shapes)

        def attempt(ends: Tensor, y: Tensor, slope: Tensor, *more: Tensor) -> tuple[Tensor, ...]:
            bounds, inputs = more[:num_bounds], more[num_bounds:]
            t0, t1 = as_column(ends[0], y), as_column(ends[1], y)
            y1, stages = plain_stages(tableau, self.field.slope(inputs))(t0, t1, y, slope)
            results = [y1, *stages[1:]]
            if norm is not None:
                assert tableau.error_weights is not None
                weighted = [w * k for w, k in zip(tableau.error_weights, stages, strict=True) if w]
                error = (t1 - t0).to(y.dtype) * sum(weighted[1:], weighted[0])
                results.insert(1, Tolerance(bounds[0], bounds[1], norm).ratio(error, y, y1))
            return tuple(result.contiguous() for result in results)

        def examples() -> list[Any]:
            return [self._like_ends(), self._like_y(), self._like_y(), *self._like_tolerance()]

        return self._compiled(attempt, examples)

    @cached_property
    def outputs(self) -> Run:
        """Of (ends, y, all stages, theta, with own times the samples): states at shares theta of a step, of each."""
        num_stages = self.tableau.num_stages

        def outputs(ends: Tensor, y: Tensor, *more: Tensor) -> tuple[Tensor]:
            return (self._interpolated(ends, y, more[:num_stages], *more[num_stages:]).contiguous(),)

        def examples() -> list[Any]:
            return [self._like_ends(), *[self._like_y() for _ in range(num_stages + 1)], *self._like_outputs()]

        return self._compiled(outputs, examples, has_inputs=False)

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
        num_outputs = has_outputs * (2 + self._has_own_times)

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
                slope, t0, t1 = self.field.slope(inputs), as_column(ends[0], y), as_column(ends[1], y)
                step = plain_stages(self.tableau, slope)
                y1, stages = step(t0, t1, y, slope(t0.to(y.dtype), y), has_outputs)
                results, cotangents = [y1], [grad_end]
                if theta is not None:
                    results.append(self._interpolated(ends, y, stages, theta, *outputs[2:]))
                    cotangents.append(outputs[0])
                grads = torch.autograd.grad(results, wanted, cotangents, allow_unused=True, materialize_grads=True)
            grad_y, *others = grads
            if mask is not None:
                grad_y, y1 = grad_y + torch.where(mask, 0, grad), torch.where(mask, y1, y)
            change = [(y1.detach() - end).abs().amax(), end.abs().amax()]
            return (grad_y.contiguous(), *(grad.contiguous() for grad in others), *change)

        def examples() -> list[Any]:
            y, mask = self._like_y(), [self._like_mask()] if with_mask else []
            outputs = self._like_outputs() if has_outputs else []
            if outputs:
                shape = (outputs[0].shape[0], *y.shape[int(self._has_own_times) :])
                outputs.insert(0, torch.empty(shape, dtype=y.dtype, device=y.device))
            return [self._like_ends(), *[self._like_y() for _ in range(3)], *mask, *outputs]

        return self._compiled(pull, examples)

    def _interpolated(
        self, ends: Tensor, y: Tensor, stages: Sequence[Tensor], theta: Tensor, *sample: Tensor
    ) -> Tensor:
        h = as_column((ends[1] - ends[0]).to(y.dtype), y)
        dims = (1,) * (y.dim() - len(sample))
        terms = []
        for row, stage in zip(self.tableau.dense or (), stages, strict=True):
            if any(row):
                weight = (theta * polynomial(row, theta)).to(y.dtype).view(-1, *dims)
                terms.append(weight * (stage[sample[0]] if sample else stage.unsqueeze(0)))
        change: Tensor = sum(terms[1:], terms[0])
        if sample:
            return y[sample[0]] + h[sample[0]] * change
        return y.unsqueeze(0) + h * change

    def _compiled(
        self, function: Callable[..., Any], examples: Callable[[], list[Any]], *, has_inputs: bool = True
    ) -> Run:
        """The function compiled for arguments like these examples and, at the end, the inputs."""
        y = self.field.y
        with y.fake_mode, torch.no_grad():
            arguments = [*examples(), *(self.field.inputs if has_inputs else ())]
        run = lowered(function, arguments, y.fake_mode, y.device.type)
        if not self.field.holds():
            raise NotWhole(f"{function.__name__} cannot be compiled for a batch of this size after one of another")
        return run

    def _like_ends(self) -> Tensor:
        y = self.field.y
        shape = (2, y.shape[0]) if self._has_own_times else (2,)
        return torch.empty(shape, dtype=torch.float64, device=y.device)

    def _like_y(self) -> Tensor:
        y = self.field.y
        return torch.empty(y.shape, dtype=y.dtype, device=y.device)

    def _like_mask(self) -> Tensor:
        y = self.field.y
        return torch.empty((y.shape[0], *(1,) * (y.dim() - 1)), dtype=torch.bool, device=y.device)

    def _like_tolerance(self) -> list[Tensor]:
        y = self.field.y
        return [torch.empty(shape, dtype=y.dtype, device=y.device) for shape in self._shapes]

    def _like_outputs(self) -> list[Tensor]:
        """Theta, and the samples, of any number of outputs."""
        y, shape_env = self.field.y, self.field.y.fake_mode.shape_env
        with shape_env.ignore_fresh_unbacked_symbols():
            count: Any = shape_env.create_unbacked_symint()
        torch._check(count >= 0)
        theta = torch.empty((count,), dtype=torch.float64, device=y.device)
        return [theta, torch.empty_like(theta, dtype=torch.int64)] if self._has_own_times else [theta]

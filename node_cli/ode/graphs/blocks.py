"""Several steps of a solve in one graph, and several accepted steps backwards in another.

Neither has a branch: what comes after the end of the solve, or after an attempt that was rejected, is masked. All
numbers of the step size control stay in float64 tensors of the graph; the host reads them once for a block. A few
outputs are made in it too; of many, `places.py` makes them of what the steps leave behind.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from node_cli.ode.compilation import SMALL_STATE
from node_cli.ode.graphs import backward_blocks, forward_blocks
from node_cli.ode.graphs.beside import Work
from node_cli.ode.graphs.block_plan import BlockPlan
from node_cli.ode.graphs.examples import Run, Source
from node_cli.ode.graphs.field_graph import num_numbers
from node_cli.ode.graphs.step_control import Control


class Blocks:
    """The blocks of one plan, each compiled when it is first asked for.

    Times are 0-dim, or `(batch,)` where each sample has its own. `expected` is how many attempts the last solve made,
    by its control and by whether its first step was chosen. `most` is the number of steps in a block.

    With `keeps`, blocks return what the gradient needs, and no step is run again; `some_keep`, if any is compiled.
    """

    def __init__(self, plan: BlockPlan) -> None:
        self.plan = plan
        self.expected: dict[Hashable, int] = {}
        self.some_keep = False
        field = plan.examples.field
        # On a CPU, the time between two blocks matters for small states alone, and large ones are held once for a step.
        is_large = field.y.device.type == "cpu" and num_numbers(field.y) > SMALL_STATE
        self.most = 2 if field.is_short and not is_large else 1
        self._compiled: dict[Hashable, Run] = {}

    def attempts(
        self, control: Control, num_attempts: int, start: str, *, keeps: bool, meanwhile: Work | None = None
    ) -> Run:
        """So many attempts. `start` is `chosen` or `given`, at the beginning with that first step, or `none`, later.

        While they are compiled, so is what comes next, by `meanwhile`; see `beside`.

        Of (clock, end, y, [slope, unless at the beginning], rtol, atol, inputs): state, slope, clock, log
        `(attempts, 5, ...)`, the states that the attempts but the first one started from, [rows of the attempts, [and
        their weights in the outputs, `(times, attempts, rows)`], or the sum], what is kept of the attempts. The end is
        the last time, or all times `(times, ...)` if they end steps or there are weights. Logged are both ends, the
        step that was meant, the error ratio, and the factor of the next step.
        """
        self.some_keep |= keeps
        key = (control.key, num_attempts, start, keeps)
        return self._once(
            key,
            lambda: forward_blocks.attempts(self.plan, control, num_attempts, start, keeps=keeps),
            meanwhile,
            keeps=keeps,
            control=control,
        )

    def steps(self, num_steps: int, *, is_first: bool, keeps: bool, meanwhile: Work | None = None) -> Run:
        """So many steps of a grid; see `attempts`.

        Of (ends `(steps, 2, ...)`, [all times], y, [slope, unless at the beginning], inputs): state, slope, the states
        that the steps but the first one started from, [rows of the steps, [and their weights], or the sum], what is
        kept of the steps.
        """
        self.some_keep |= keeps
        key = (num_steps, is_first, keeps)
        return self._once(
            key,
            lambda: forward_blocks.steps(self.plan, num_steps, is_first=is_first, keeps=keeps),
            meanwhile,
            keeps=keeps,
        )

    def backward(self, num_steps: int, *, with_times: bool) -> Run:
        """So many accepted steps backwards, each run again.

        Of (ends `(steps, 2, ...)`, the cotangent of the last state, [those of the rows, or of all outputs, and all
        times], the states that the steps started from, the last one, inputs): the cotangents of the first state, of the
        inputs that have a gradient, [of the ends; and the slopes `(steps, stages, *y.shape)`]; then `(steps, 2)`, how
        far each end is from what it was and how large it was.
        """
        key = ("again", num_steps, with_times)
        return self._once(key, lambda: backward_blocks.run_again(self.plan, num_steps, with_times=with_times))

    def backward_of_kept(self, num_steps: int, *, is_first: bool) -> Run:
        """So many accepted steps backwards, by what was kept of them; one of no length changes nothing.

        Of (ends, the cotangents of the last state and, where the method shares a stage, of its slope, [those of the
        rows, or of all outputs, and all times], the states, the last one, what was kept of each step, inputs): the
        cotangents of the first state, [of its slope, unless the solve `is_first` there,] and of the inputs.
        """
        key = ("kept", num_steps, is_first)
        return self._once(key, lambda: backward_blocks.of_kept(self.plan, num_steps, is_first=is_first), keeps=True)

    def _once(
        self,
        key: tuple[Any, ...],
        source: Callable[[], Source],
        meanwhile: Work | None = None,
        *,
        keeps: bool = False,
        control: Control | None = None,
    ) -> Run:
        if key not in self._compiled:
            how = str(key) if control is None else control.description and f"{control.description} {key[1:]}"
            what = how and f"{self.plan.description} {how} {self.plan.digest if keeps else None}"
            self._compiled[key] = self.plan.examples.compiled(source(), meanwhile, what)
            self.plan.examples.require_size()
        return self._compiled[key]

"""The outputs of a model whose solve may fail: one bad sample does not take its batch with it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from node_cli.ode.solution import SolveError


class SolvedSamples:
    """Gathers a model's outputs over batches; with `skip_failed`, of those samples alone that can be solved.

    A batch whose solve fails is split in halves, and those again, until the samples that fail stand alone.
    """

    def __init__(self, model: nn.Module, *, skip_failed: bool) -> None:
        self._model = model
        self._skip_failed = skip_failed
        self._outputs: list[Tensor] = []
        self._solved: list[bool] = []
        self._failure: SolveError | None = None

    def add(self, inputs: Tensor) -> None:
        """Runs the model on `inputs` `(batch, ...)`.

        Raises:
            SolveError: the solve failed, and failures are not to be skipped.
        """
        try:
            outputs = self._model(inputs)
        except SolveError as error:
            if not self._skip_failed:
                raise
            self._failure = error.with_traceback(None)  # which would keep the tensors of the failed solve alive
        else:
            self._outputs.append(outputs)
            self._solved += [True] * len(inputs)
            return
        if len(inputs) == 1:
            self._solved.append(False)
            return
        for half in inputs.tensor_split(2):
            self.add(half)

    @property
    def outputs(self) -> Tensor:
        """Of the solved samples, in order, `(solved, ...)`.

        Raises:
            SolveError: there are none.
        """
        if not self._outputs and self._failure is not None:
            error = self._failure
            detail = f"and so for each of the {len(self._solved)} samples alone; "
            raise SolveError(error.status, error.t, error.nfe, detail) from error
        return torch.cat(self._outputs)

    @property
    def solved(self) -> Tensor:
        """Which samples were solved, `(samples,)` bool, on the processor."""
        return torch.tensor(self._solved)

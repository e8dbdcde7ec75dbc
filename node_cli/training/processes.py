"""The processes that train one model together: each has its share of every batch, and all have the same weights."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from node_cli.ode.errors import ArgumentError
from node_cli.ode.solution import SolveError
from node_cli.training import launched
from node_cli.training.launched import ProcessLostError
from node_cli.training.state import TrainingError

Value = TypeVar("Value")
SMALLEST = "solver/step_min"  # of the figures of a solve, the one that is no mean


class Processes:
    """Process `rank` of `count`. What takes all of them is called by all, in the same order; alone it costs nothing."""

    def __init__(self, rank: int, count: int, device: torch.device) -> None:
        self.rank, self.count = rank, count
        self._device = device

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def share(self, batch: Any) -> tuple[Any, float]:
        """The part of a batch (a named tuple of tensors, samples first) for this process, and its share of the samples.

        A batch with fewer samples than processes leaves some without any: they get its first one, with share 0.
        """
        if self.count == 1:
            return batch, 1.0
        mine = batch._make(self._slice(tensor) for tensor in batch)
        return mine, len(batch[0].tensor_split(self.count)[self.rank]) / len(batch[0])

    def largest(self, number: int) -> int:
        """The largest of the numbers that the processes give."""
        if self.count == 1:
            return number
        numbers = torch.tensor([number], device=self._device)
        dist.all_reduce(numbers, dist.ReduceOp.MAX)
        return int(numbers.item())

    @contextmanager
    def failing_together(self) -> Iterator[None]:
        """A failure within it, in any process, is raised in all of them.

        Raises:
            SolveError, ArgumentError, TrainingError: that of the first process that failed.
        """
        if self.count == 1:
            yield
            return
        failure: Exception | None = None
        try:
            yield
        except (SolveError, ArgumentError, TrainingError) as error:
            failure = error.with_traceback(None)  # which would keep the graph of the failed attempt alive
        if self.largest(failure is not None):
            raise next(error for error in self.gathered(failure) if error is not None)

    def sum_gradients(self, model: nn.Module) -> None:
        """Gives every parameter the sum of its gradients over the processes."""
        if self.count == 1:
            return
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        for _, alike in itertools.groupby(sorted(grads, key=_kind), key=_kind):
            tensors = list(alike)
            flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
            dist.all_reduce(flat)
            for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
                tensor.copy_(total.view_as(tensor))

    def combined(
        self, share: float, means: Mapping[str, float], costs: Mapping[str, float]
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Figures of all processes: `means` over samples weighted by the `share` of each, `costs` of a solve."""
        if self.count == 1:
            return dict(means), dict(costs)
        mine = torch.tensor([*(share * value for value in means.values()), *costs.values()], dtype=torch.float64)
        rows = [torch.empty_like(mine, device=self._device) for _ in range(self.count)]
        dist.all_gather(rows, mine.to(self._device))
        table = torch.stack(rows).cpu()
        total, mean, least = (values.tolist() for values in (table.sum(0), table.mean(0), table.min(0).values))
        picked = [least[i] if tag.startswith(SMALLEST) else mean[i] for i, tag in enumerate(costs, start=len(means))]
        return dict(zip(means, total, strict=False)), dict(zip(costs, picked, strict=True))

    def gathered(self, value: Value) -> list[Value]:
        """What each process gives, by rank."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def from_first(self, value: Value) -> Value:
        """What the first process gives."""
        if self.count == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, device=self._device)
        return values[0]

    def share_buffers(self, model: nn.Module) -> None:
        """Gives every process the running means, and the like, of the first one."""
        if self.count > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)

    def spread(self, model: nn.Module) -> nn.Module:
        """The model, each call of it split over the processes; all of them get all outputs."""
        return model if self.count == 1 else _Spread(model, self)

    def concatenated(self, outputs: Tensor, count: int) -> Tensor:
        """The outputs of all shares of `count` samples, in order."""
        shares = [outputs.to(self._device) for outputs in self.gathered(outputs.cpu())]
        return torch.cat(shares[:count])  # later ones hold the sample that stands in for none

    def _slice(self, tensor: Tensor) -> Tensor:
        mine = tensor.tensor_split(self.count)[self.rank]
        return mine if len(mine) else tensor[:1]


ALONE = Processes(0, 1, torch.device("cpu"))


@contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """The processes that were started together, talking to each other through NCCL on GPUs and gloo elsewhere."""
    if launched.count() == 1:
        yield ALONE
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), device)
        dist.barrier()  # nobody leaves while another one still listens
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            raise ProcessLostError(f"process {launched.rank()} has lost another one") from error
        raise
    finally:
        gc.collect()  # what still holds the group, dropped after it, aborts the process at its exit now and then
        dist.destroy_process_group()


class _Spread(nn.Module):
    def __init__(self, model: nn.Module, processes: Processes) -> None:
        super().__init__()
        self.model = model
        self._processes = processes

    def forward(self, inputs: Tensor) -> Tensor:
        with self._processes.failing_together():
            outputs: Tensor = self.model(self._processes._slice(inputs))
        return self._processes.concatenated(outputs, len(inputs))


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype)

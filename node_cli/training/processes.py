"""The processes that train one model together: each has a shard of every batch, and all have the same weights."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from node_cli.batch import Batch, concatenate, num_samples, take, to_device
from node_cli.ode.errors import ArgumentError
from node_cli.ode.solution import SolveError
from node_cli.training import launched
from node_cli.training.launched import ProcessLostError
from node_cli.training.state import TrainingError

Value = TypeVar("Value")
SMALLEST = "solver/step_min"  # of the costs of a solve, the one that is no mean


class Processes:
    """Process `rank` of `count`.

    Methods that involve all processes must be called by all of them, in the same order. A single process costs nothing.
    """

    def __init__(self, rank: int, count: int, device: torch.device) -> None:
        self.rank, self.count = rank, count
        self._device = device

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes logs and checkpoints."""
        return self.rank == 0

    def shard(self, batch: Batch) -> tuple[Batch, bool]:
        """The samples of a batch for this process, and whether they count.

        If there are more processes than samples, those without any get the first sample, which does not count.
        """
        if self.count == 1:
            return batch, True
        mine = {name: tensor.tensor_split(self.count)[self.rank] for name, tensor in batch.items()}
        counts = num_samples(mine) > 0
        return mine if counts else take(batch, slice(1)), counts

    def total(self, value: Tensor) -> Tensor:
        """The sum of a 0-dim tensor over the processes."""
        if self.count == 1:
            return value
        total = value.detach().to(self._device, torch.float64)
        dist.all_reduce(total)
        return total.to(value.dtype)

    def largest(self, number: int) -> int:
        """The largest number over the processes."""
        if self.count == 1:
            return number
        numbers = torch.tensor([number], device=self._device)
        dist.all_reduce(numbers, dist.ReduceOp.MAX)
        return int(numbers.item())

    @contextmanager
    def failing_together(self) -> Iterator[None]:
        """A failure within this context, in any process, is raised in all of them.

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
        """Replaces every gradient by its sum over the processes."""
        if self.count == 1:
            return
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        for dtype in sorted({grad.dtype for grad in grads}, key=str):
            tensors = [grad for grad in grads if grad.dtype == dtype]
            flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
            dist.all_reduce(flat)
            for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
                tensor.copy_(total.view_as(tensor))

    def combined(
        self, shares: Mapping[str, float], costs: Mapping[str, float]
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Over all processes: the sums of `shares`, and the means of `costs` (the minimum of the smallest step)."""
        if self.count == 1:
            return dict(shares), dict(costs)
        mine = torch.tensor([*shares.values(), *costs.values()], dtype=torch.float64)
        rows = [torch.empty_like(mine, device=self._device) for _ in range(self.count)]
        dist.all_gather(rows, mine.to(self._device))
        table = torch.stack(rows).cpu()
        total, mean, least = (values.tolist() for values in (table.sum(0), table.mean(0), table.min(0).values))
        picked = [least[i] if tag.startswith(SMALLEST) else mean[i] for i, tag in enumerate(costs, start=len(shares))]
        return dict(zip(shares, total, strict=False)), dict(zip(costs, picked, strict=True))

    def gathered(self, value: Value) -> list[Value]:
        """The values of all processes, by rank."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def from_first(self, value: Value) -> Value:
        """The value of the first process."""
        if self.count == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, device=self._device)
        return values[0]

    def broadcast_buffers(self, model: nn.Module) -> None:
        """Gives every process the buffers of the first one: running means and the like."""
        if self.count > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)

    def gathered_rows(self, rows: Batch, count: int) -> Batch:
        """The rows for all shards of a batch of `count` samples, in order."""
        if self.count == 1:
            return rows
        shards = [to_device(shard, self._device) for shard in self.gathered(to_device(rows, "cpu"))]
        return concatenate(shards[:count])  # later ones hold the sample that stands in for none


ALONE = Processes(0, 1, torch.device("cpu"))


@contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """The processes that were started together, connected by NCCL on GPUs and by gloo elsewhere."""
    if launched.count() == 1:
        yield ALONE
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), device)
        dist.barrier()  # nobody leaves while another one still listens
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            raise ProcessLostError(f"process {launched.rank()} has lost the connection to another one") from error
        raise
    finally:
        gc.collect()  # what still holds the group, dropped after it, aborts the process at its exit now and then
        dist.destroy_process_group()

"""Compiled functions as CUDA graphs: one launch for all kernels of a call, which take longer to launch than to run.

A graph reads and writes the memory that it was captured with. Arguments are copied there, but for parameters, which are
read where they are as long as they stay there; results are copied out, as a solve keeps them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)

Function = Callable[[list[Any]], Sequence[Tensor]]  # empties the list that it is given
MOST_GRAPHS = 8  # of one function; other sizes run without one
MOST_SIZES = 64  # that are remembered for having been met once


class Replayed:
    """A compiled function that is captured for sizes of its arguments at the second call with them.

    What is met once, as a last batch is, runs as it is; so does all where nothing can be captured. Graphs of one stream
    share their memory, those of several streams have none in common.
    """

    def __init__(self, function: Function, name: str) -> None:
        self._function = function
        self._name = name
        self._met: set[Hashable] = set()
        self._graphs: dict[Hashable, _Graph] = {}
        self._moving: set[int] = set()  # parameters that do not stay where they are
        self._is_refused = False

    def __call__(self, arguments: list[Any]) -> Sequence[Tensor]:
        """What the function returns, in memory of its own."""
        device = arguments[0].device
        with torch.cuda.device(device):
            key = (torch.cuda.current_stream().cuda_stream, *(argument.shape for argument in arguments))
            graph = self._graphs.get(key)
            if graph is not None and (moved := graph.moved(arguments)):
                self._moving.update(moved)
                self._graphs.clear()
                graph = None
            if graph is None and self._is_worth_it(key):
                graph = self._captured(key, arguments)
            if graph is None:
                return self._function(arguments)
            results = graph.replay(arguments)
        arguments.clear()
        return results

    def _is_worth_it(self, key: Hashable) -> bool:
        if self._is_refused or len(self._graphs) == MOST_GRAPHS:
            return False
        if key in self._met:
            return True
        if len(self._met) == MOST_SIZES:
            self._met.clear()
        self._met.add(key)
        return False

    def _captured(self, key: Hashable, arguments: list[Any]) -> _Graph | None:
        stream = torch.cuda.current_stream()
        try:
            graph = self._graphs[key] = _Graph(self._function, arguments, self._moving)
        except Exception as error:  # what cannot be captured has no common class
            torch.cuda.set_stream(stream)  # which a capture that fails leaves behind
            _end_failed_capture(arguments[0].device)
            self._is_refused = True
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            log.warning("%s of the solve is no CUDA graph, and takes longer: %s", self._name, reason)
            return None
        return graph


class _Graph:
    """One graph, for arguments of the same sizes as these; parameters are copied too where they are `moving`."""

    def __init__(self, function: Function, arguments: list[Any], moving: set[int]) -> None:
        device, outer = arguments[0].device, torch.cuda.current_stream()
        if any(each.device != device for each in arguments):  # a graph would keep the number that it is now
            raise ValueError("it uses a tensor that is not on the GPU of the state")
        inner, pool = _stream_and_pool(device, outer.cuda_stream)
        fixed = {i for i, each in enumerate(arguments) if isinstance(each, nn.Parameter) and i not in moving}
        self._addresses = [(i, arguments[i].data_ptr()) for i in sorted(fixed)]
        self._graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(False), torch.no_grad():
            own = [each if i in fixed else torch.empty_like(each).copy_(each) for i, each in enumerate(arguments)]
            inner.wait_stream(outer)
            with torch.cuda.stream(inner):  # libraries prepare themselves for a stream at the first call
                function(list(own))
            outer.wait_stream(inner)
            # Other threads, such as those that load data, may go on as they like.
            with torch.cuda.graph(self._graph, pool=pool, stream=inner, capture_error_mode="thread_local"):
                self._results = list(function(list(own)))
        self._inputs = _by_dtype([(i, each) for i, each in enumerate(own) if i not in fixed])
        self._outputs = _by_dtype(list(enumerate(self._results)))

    def moved(self, arguments: list[Any]) -> list[int]:
        """The parameters that are elsewhere by now."""
        return [i for i, address in self._addresses if arguments[i].data_ptr() != address]

    def replay(self, arguments: list[Any]) -> tuple[Tensor, ...]:
        """The results for these arguments."""
        with torch.no_grad():
            for numbers, own in self._inputs:
                torch._foreach_copy_(own, [arguments[i] for i in numbers])
            self._graph.replay()
            results = [torch.empty_like(each) for each in self._results]
            for numbers, own in self._outputs:
                torch._foreach_copy_([results[i] for i in numbers], own)
        return tuple(results)


def _end_failed_capture(device: torch.device) -> None:
    """Captures one kernel: only a capture that succeeds lets random numbers be drawn again after one that failed."""
    number = torch.zeros((), device=device)
    with suppress(RuntimeError), torch.cuda.graph(torch.cuda.CUDAGraph()):
        number.add_(1)


def _by_dtype(tensors: list[tuple[int, Tensor]]) -> list[tuple[list[int], list[Tensor]]]:
    """Their numbers and themselves, in groups that are copied by one kernel each."""
    groups: dict[torch.dtype, tuple[list[int], list[Tensor]]] = {}
    for i, tensor in tensors:
        numbers, own = groups.setdefault(tensor.dtype, ([], []))
        numbers.append(i)
        own.append(tensor)
    return list(groups.values())


@lru_cache(maxsize=64)
def _stream_and_pool(device: torch.device, stream: int) -> tuple[Any, Any]:
    """What the graphs that run on one stream are captured on, and the memory that they share."""
    return torch.cuda.Stream(device), torch.cuda.graph_pool_handle()

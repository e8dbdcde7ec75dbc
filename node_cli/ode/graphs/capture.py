"""Finds the graph of a vector field by torch._dynamo, which guards it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from node_cli.ode.compilation import NUM_KEPT, can_compile, with_own_code
from node_cli.ode.graphs.field_graph import FieldGraph
from node_cli.ode.graphs.lowering import NotWhole, OtherSize
from node_cli.ode.states import as_column, keep_autocast
from node_cli.ode.stepping import Slope

log = logging.getLogger(__name__)


class Capture:
    """Finds the graph of one vector field, under the autocast of this moment, and the tensors that it uses by now.

    `reason` says why there is none. What a graph rests on (modes, numbers, shapes) is checked at each call.
    """

    def __init__(self, vector_field: Slope, device_type: str) -> None:
        field = keep_autocast(vector_field, device_type)

        def call(t: Tensor, y: Tensor) -> Tensor:
            return field(t, y)

        self.reason: str | None = None
        self._device_type = device_type
        self._field = field
        self._found: tuple[FieldGraph, tuple[Any, ...]] | None = None
        self._last: tuple[Any, FieldGraph, Callable[[dict[str, Any]], tuple[Any, ...]]] | None = None
        self._function = with_own_code(call)
        self._call = torch.compile(self._function, backend=self._backend, fullgraph=True)

    def __call__(self, y0: Tensor, *, by_sample: bool) -> tuple[FieldGraph, tuple[Tensor, ...]] | None:
        """The graph and its inputs for a solve from `y0`, perhaps with a time for each sample.

        None, and one line in the log, where there is none.
        """
        if self.reason is not None:
            return None
        is_plain = torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        stand_ins = self._stand_ins(y0.shape, y0.dtype, y0.device, by_sample)
        with nullcontext() if is_plain else _with_gradients():
            found = self._as_before(*stand_ins) or self._anew(*stand_ins)
        if found is not None and not found[0].holds_for(tuple(y0.shape)):
            _say_that_a_step_is_compiled(tuple(y0.shape))
            return None
        return found

    def _anew(self, t: Tensor, y: Tensor) -> tuple[FieldGraph, tuple[Any, ...]] | None:
        """By torch._dynamo, which finds the graph or checks that it still holds."""
        try:
            self._call(t, y)
        except Exception as error:  # what a compiler stumbles over has no common class
            self.refuse(error)
            return None
        found, self._found = self._found, None
        if found is None:
            self.refuse(NotWhole("nothing of it can be compiled"))
            return None
        graph, inputs = found[0], found[0].inputs_of(found[1])
        entries, read = _entries(self._function), graph.reader
        self._last = (entries[0].guard_manager, graph, read) if len(entries) == 1 and read is not None else None
        return graph, inputs

    def _as_before(self, t: Tensor, y: Tensor) -> tuple[FieldGraph, tuple[Any, ...]] | None:
        """The same by the guards alone, in half of the time, where there is one graph; None: ask torch._dynamo."""
        if self._last is None:
            return None
        guards, graph, read = self._last
        scope = {"t": t, "y": y, "field": self._field}
        if guards.cache_entry is None or not guards.check(scope):  # None: something that it guards is gone
            return None
        return graph, read(scope)

    @staticmethod
    @lru_cache(maxsize=NUM_KEPT)
    def _stand_ins(shape: torch.Size, dtype: torch.dtype, device: torch.device, by_sample: bool) -> list[Tensor]:
        """A time, or one for each sample, and a state."""
        y = torch.empty(shape, dtype=dtype, device=device, requires_grad=True)
        t = as_column(y.new_empty(shape[:1] if by_sample else ()), y)
        for tensor in (t, y):
            if tensor.dim() and len(tensor) > 1:
                torch._dynamo.maybe_mark_dynamic(tensor, 0)
        return [t, y]

    def is_whole(self, graph: FieldGraph, require: Callable[[], None]) -> bool:
        """Whether an evaluation is all in the graph, by what `require` raises; from then on the graph knows."""
        try:
            require()
        except Exception as error:  # see above
            self.refuse(error)
            return False
        graph.is_whole = True
        return True

    def refuse(self, error: Exception) -> None:
        """Says once why the vector field is not compiled as a whole, or not for a size."""
        if isinstance(error, OtherSize):  # by now the guards tell; see `holds_for`
            return
        if self.reason is not None:
            return
        if not can_compile(self._device_type):  # which says why; trying it first would make every start slower
            self.reason = "nothing can be compiled"
            return
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        self.reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        log.warning("compile=solve cannot compile this vector field as a whole, so step is taken: %s", self.reason)

    def _backend(self, gm: GraphModule, _: Any) -> Callable[..., tuple[Any, ...]]:
        graph = FieldGraph(gm)

        def run(*arguments: Any) -> tuple[Any, ...]:
            self._found = graph, arguments
            return (arguments[0],)

        return run


def _entries(function: Any) -> list[Any]:
    """What torch._dynamo keeps of a function: a graph and its guards each; nothing where torch does not say."""
    entries_of: Any = getattr(torch._C._dynamo.eval_frame, "_debug_get_cache_entry_list", lambda code: [])
    return list(entries_of(function.__code__))


@contextmanager
def _with_gradients() -> Iterator[None]:
    with torch.inference_mode(False), torch.enable_grad():
        yield


@lru_cache(maxsize=NUM_KEPT)
def _say_that_a_step_is_compiled(shape: tuple[int, ...]) -> None:
    log.warning("compile=solve has compiled for other sizes than a state of shape %s, so step is taken", shape)


@lru_cache(maxsize=NUM_KEPT)
def capture_of(vector_field: Slope, device_type: str, autocast: torch.dtype | None) -> Capture | None:
    """What finds the graph of a vector field, under the autocast of this moment (None: none); None: nothing does."""
    try:
        return Capture(vector_field, device_type)
    except RuntimeError:  # torch.compile does not know this Python
        can_compile(device_type)
        return None

"""How much memory code needs for its tensors, counted exactly."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class TensorMemory(TorchDispatchMode):
    """While open, counts the bytes of all living tensors that operations have made; `peak` is the maximum.

    Graphs and backward passes count too; earlier tensors, and the scratch space within an operation, do not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._now = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        is_new = func is torch.ops.aten.lift_fresh.default  # numbers from Python, which it hands on
        known = set() if is_new else {storage._cdata for storage in _storages((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            if storage._cdata not in known:
                known.add(storage._cdata)
                self._add(storage.nbytes())
                weakref.finalize(storage, self._add, -storage.nbytes())
        return result

    def _add(self, size: int) -> None:
        self._now += size
        self.peak = max(self.peak, self._now)


def _storages(tree: Any) -> list[torch.UntypedStorage]:
    return [value.untyped_storage() for value in tree_iter(tree) if isinstance(value, torch.Tensor)]

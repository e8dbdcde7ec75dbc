"""How much memory a piece of code needs for its tensors, counted exactly."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class TensorMemory(TorchDispatchMode):
    """While open, counts the bytes of the tensors that operations make and that are not yet gone; `peak` is the most.

    Graphs and backward passes are counted too; what was there before, and an operation's own scratch space, are not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._now = 0
        self._alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        is_new = func is torch.ops.aten.lift_fresh.default  # numbers from Python, which it hands on
        given = set() if is_new else {storage._cdata for storage in _storages((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            if storage._cdata not in given:
                self._add(storage)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self._alive:
            self._alive[storage._cdata] = weakref.ref(storage, self._remover(storage._cdata, storage.nbytes()))
            self._now += storage.nbytes()
            self.peak = max(self.peak, self._now)

    def _remover(self, key: int, size: int) -> Callable[[object], None]:
        def remove(_: object) -> None:
            self._now -= size
            self._alive.pop(key, None)

        return remove


def _storages(tree: Any) -> list[torch.UntypedStorage]:
    return [value.untyped_storage() for value in tree_iter(tree) if isinstance(value, torch.Tensor)]

"""What tells one set of data from another, whatever its file is called."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from node_cli.batch import Batch

CHUNK = 1 << 22  # values looked at at once


def exact_digest(splits: Mapping[str, Batch]) -> str:
    """SHA-256 of tensors to their last bit: for what was read, before anything was computed from it.

    Of each split the tensors count in the order of their names.
    """
    digest = hashlib.sha256()
    for name, tensor in _tensors(splits):
        _add_exactly(digest, name, tensor)
    return digest.hexdigest()


def rough_digest(splits: Mapping[str, Batch]) -> str:
    """SHA-256 of whole numbers to their last bit, and of five digits of sums over the others.

    For what was computed: another CPU, or another number of threads, may give other last bits.
    """
    digest = hashlib.sha256()
    for name, tensor in _tensors(splits):
        if tensor.is_floating_point() or tensor.is_complex():
            values = torch.view_as_real(tensor) if tensor.is_complex() else tensor
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} {_in_five_digits(values)} ".encode())
        else:
            exact = hashlib.sha256()
            _add_exactly(exact, name, tensor)
            digest.update(exact.hexdigest().encode())
    return digest.hexdigest()


def _tensors(splits: Mapping[str, Batch]) -> list[tuple[str, Tensor]]:
    return [(name, splits[name][key].detach().cpu()) for name in sorted(splits) for key in sorted(splits[name])]


def _add_exactly(digest: hashlib._Hash, name: str, tensor: Tensor) -> None:
    digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
    digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)


def _in_five_digits(tensor: Tensor) -> str:
    """How many values are finite, their root mean square, and, in units of it, their mean and that of their places."""
    flat, count = tensor.reshape(-1), max(1, tensor.numel())
    num_finite, squares, total, placed = 0, 0.0, 0.0, 0.0
    for start in range(0, len(flat), CHUNK):
        values = flat[start : start + CHUNK].double()
        finite = values.isfinite()
        num_finite += int(finite.sum())
        values = values.where(finite, 0)
        places = torch.arange(start, start + len(values), dtype=torch.float64) / count
        squares += float(values.square().sum())
        total += float(values.sum())
        placed += float((values * places).sum())
    size = (squares / count) ** 0.5
    shares = [round(each / count / size, 5) + 0.0 for each in (total, placed)] if size else []
    return f"{num_finite} {size:.4e} {shares}"

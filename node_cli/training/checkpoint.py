"""Checkpoints: written whole or not at all, verified before they are trusted.

Plain containers only, so that they load with `weights_only=True`: nothing in a file is ever run. A file is what
`torch.save` writes, a zip archive, with the SHA-256 of all before it as the archive's comment. The archive's own
checksums leave its directory out, where a flipped bit can make `torch.load` return memory that was never written.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from node_cli.config import ConfigError
from node_cli.files import link_whole, read_bytes, read_end, remove_unfinished, write_whole
from node_cli.training.payload import OTHER_MODEL, unlike

log = logging.getLogger(__name__)

FORMAT = 2
DIGEST_LENGTH = 64
DIGEST = re.compile(rb"[0-9a-f]{64}")
MAX_BYTES = 1 << 36


class CheckpointError(ConfigError):
    """A checkpoint that is missing or damaged, named in one line."""


class Checkpoints:
    """The checkpoints of one run: `last.pt`, `best.pt` and the newest `keep` of `step-<step>.pt`.

    `run` is put into each of them: see `identity`.
    """

    def __init__(self, folder: Path, keep: int, run: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        self._run = dict(run or {})
        self._keep = keep
        folder.mkdir(exist_ok=True)
        remove_unfinished(folder)

    def save(self, payload: dict[str, Any], step: int, *, is_best: bool) -> None:
        """Writes `payload` under its step and as `last.pt`, and as `best.pt` if it is; then forgets the oldest.

        Later ones are forgotten too: they are there if a run was continued from before its end.

        Raises:
            OSError: it could not be written; those before it are as they were.
        """
        path = self.folder / f"step-{step:08d}.pt"
        write_checkpoint(path, self._run | payload)
        for name in ["best.pt", "last.pt"] if is_best else ["last.pt"]:  # killed in between, the epoch is made again
            link_whole(path, self.folder / name)
        paths = self._steps()
        newest = [other for other in paths if other <= path][-self._keep :]
        for other in set(paths) - set(newest):
            other.unlink()

    def go_back_to(self, path: Path, step: int, best: Mapping[str, Tensor]) -> None:
        """Makes the one that a run continues from its last one, and forgets what was saved after it.

        To be called before the records are cut: killed afterwards, the run never goes on from the end that it was to
        abandon. `best.pt` has the weights `best` from now on, of the best validation up to there.

        Raises:
            OSError: as in `save`.
        """
        last = self.folder / "last.pt"
        if not (last.exists() and path.samefile(last)):
            link_whole(path, last)
        for later in self._steps():
            if later.name > f"step-{step:08d}.pt":
                later.unlink()
        if not best:
            (self.folder / "best.pt").unlink(missing_ok=True)
        elif not _holds(self.folder / "best.pt", best):
            write_checkpoint(self.folder / "best.pt", self._run | {"model": dict(best), "average": {}})

    def _steps(self) -> list[Path]:
        """The files under their steps, by these; a folder of such a name is not ours."""
        return sorted(path for path in self.folder.glob("step-*.pt") if not path.is_dir())


def _holds(path: Path, weights: Mapping[str, Tensor]) -> bool:
    try:
        known = evaluated_weights(read_checkpoint(path))
    except CheckpointError:
        return False
    return known.keys() == weights.keys() and all(torch.equal(known[name], weights[name].cpu()) for name in known)


def write_checkpoint(path: Path, payload: dict[str, Any]) -> None:
    """Writes it whole, or leaves what is at `path`.

    Raises:
        OSError: it could not be written (a full disk, say), or is not there as it was written.
    """
    write_whole(path, _to_bytes({"format": FORMAT, **payload}))


class OtherRunError(CheckpointError):
    """A sound checkpoint that is of another run, or of other data."""


def read_first_sound(
    paths: Sequence[Path], check: Callable[[Path, Mapping[str, Any]], None] = lambda path, payload: None
) -> tuple[Path, dict[str, Any]]:
    """The first of the checkpoints that is sound, and its payload; those before it are named in the log.

    `check` raises CheckpointError for what is sound but cannot be gone on from.

    Raises:
        CheckpointError: none is; nothing is logged.
    """
    damaged: list[CheckpointError] = []
    for path in paths:
        try:
            payload = read_checkpoint(path)
            if "state" not in payload:
                raise CheckpointError(f"{path} has the weights of the best validation alone: no run can go on from it")
            check(path, payload)
        except CheckpointError as error:
            damaged.append(error)
        else:
            for found in damaged:
                log.warning("%s", found)
            if damaged:
                log.warning("continuing from %s, the newest checkpoint that is sound", path)
            return path, payload
    if len(paths) == 1 or all(isinstance(error, OtherRunError) for error in damaged):
        raise damaged[0]
    names = ", ".join(path.name for path in paths)
    raise CheckpointError(f"no checkpoint in {paths[0].parent} is sound ({names}): start a new run")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The payload of a verified file, its tensors on the CPU.

    Raises:
        CheckpointError: the file is missing, damaged, or of a format that this version does not know.
    """
    archive = io.BytesIO(_verified_bytes(path))
    try:
        payload = torch.load(archive, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever torch stumbles over: the file is as it was written, but not by us
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path} is whole, but no checkpoint of node-cli: {reason}") from error
    if not isinstance(payload, dict) or type(payload.get("format")) is not int:
        raise CheckpointError(f"{path} is whole, but no checkpoint of node-cli: it has no format")
    if payload["format"] != FORMAT:
        raise CheckpointError(f"{path} has checkpoint format {payload['format']}, this version reads format {FORMAT}")
    return payload


def load_into(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Gives `model` the weights. Raises CheckpointError if they are those of another model."""
    problem = unlike(weights, model.state_dict(), "model")
    if problem:
        raise CheckpointError(f"{OTHER_MODEL}: {problem}")
    model.load_state_dict(weights)


def evaluated_weights(payload: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights that a validation at that moment was of: their moving average, in a run that keeps one.

    Raises:
        CheckpointError: there are none.
    """
    averaged, weights = payload.get("average"), payload.get("model")
    if not isinstance(averaged, dict) or not isinstance(weights, dict):
        raise CheckpointError("has no weights")
    average = {str(name).removeprefix("module."): tensor for name, tensor in averaged.items()}
    average.pop("n_averaged", None)
    return average or weights


def _to_bytes(payload: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(payload, buffer)
    archive = buffer.getvalue()
    assert archive.endswith(b"\0\0")  # the length of the comment, which is the last field before it
    archive = archive[:-2] + DIGEST_LENGTH.to_bytes(2, "little")
    return archive + _digest(archive)


def _verified_bytes(path: Path) -> bytes:
    folder = path.parent.parent  # of the run
    try:
        if not path.is_file():
            raise CheckpointError(f"no checkpoint at {path}")
        if not DIGEST.fullmatch(read_end(path, DIGEST_LENGTH, inside=folder)):  # before anything large is read
            raise CheckpointError(f"{path} is damaged, or no checkpoint of node-cli: take another one of its folder")
        content = read_bytes(path, MAX_BYTES, inside=folder)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    if content[-DIGEST_LENGTH:] != _digest(content[:-DIGEST_LENGTH]):
        raise CheckpointError(f"{path} is damaged, or no checkpoint of node-cli: take another one of its folder")
    return content


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()

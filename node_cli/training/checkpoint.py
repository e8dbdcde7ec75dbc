"""Checkpoints: written whole or not at all, verified before they are trusted.

Plain containers only, so that they load with `weights_only=True`: nothing in a file is ever run.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch

FORMAT = 1


class CheckpointError(ValueError):
    """A checkpoint that is missing or damaged, named in one line."""


class Checkpoints:
    """The checkpoints of one run: `last.pt`, `best.pt` and the newest `keep` of `step-<step>.pt`."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self._keep = keep
        folder.mkdir(exist_ok=True)
        for stale in folder.glob(".*.tmp"):
            stale.unlink()

    @property
    def best(self) -> Path:
        """The checkpoint of the best validation."""
        return self.folder / "best.pt"

    def save(self, payload: dict[str, Any], step: int, *, is_best: bool) -> None:
        """Writes `payload` under its step and as `last.pt`, and as `best.pt` if it is; then forgets the oldest."""
        path = self.folder / f"step-{step:08d}.pt"
        write_checkpoint(path, payload)
        for name in ["last.pt", "best.pt"] if is_best else ["last.pt"]:
            _link(path, self.folder / name)
        for old in sorted(self.folder.glob("step-*.pt"))[: -self._keep]:
            old.unlink()


def write_checkpoint(path: Path, payload: dict[str, Any]) -> None:
    """Writes to a temporary file, syncs, verifies, renames: whatever happens, `path` is whole or untouched."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        torch.save({"format": FORMAT, **payload}, file)
        file.flush()
        os.fsync(file.fileno())
    verify_checkpoint(temporary)
    temporary.replace(path)
    _sync_folder(path.parent)


def read_checkpoint(path: Path, map_location: torch.device | str = "cpu") -> dict[str, Any]:
    """The payload of a verified file.

    Raises:
        CheckpointError: the file is missing, damaged, or of a format that this version does not know.
    """
    verify_checkpoint(path)
    payload = torch.load(path, map_location=map_location, weights_only=True)
    if not isinstance(payload, dict) or payload.get("format") != FORMAT:
        raise CheckpointError(f"{path} is no checkpoint of this version of node-cli (format {FORMAT})")
    return payload


def verify_checkpoint(path: Path) -> None:
    """Reads the whole file against its checksums.

    Raises:
        CheckpointError: the file is missing, cut short, or a byte of it has changed.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError) as error:
        raise CheckpointError(f"checkpoint {path} is damaged ({error}): take another one of its folder") from error
    if damaged is not None:
        raise CheckpointError(f"checkpoint {path} is damaged (in {damaged}): take another one of its folder")


def _link(source: Path, target: Path) -> None:
    """A second name for the same file where the file system can, a copy elsewhere; replaced in one step."""
    temporary = target.with_name(f".{target.name}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
    temporary.replace(target)
    temporary.unlink(missing_ok=True)  # a rename onto another name of the same file does nothing
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

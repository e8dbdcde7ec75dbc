"""Downloads that are checked by hash, tried at several addresses, and made once however many processes ask."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pooch
import requests
from filelock import AcquireReturnProxy, FileLock
from tqdm import tqdm

TIMEOUT = 30  # seconds without a byte
SLOWEST = 10_000  # bytes a second, of the whole file
CHUNK = 1 << 16
LARGEST = 1 << 28  # bytes of a file whose size is not known
PAUSES = (1.0, 3.0)  # seconds before the second and the third round over the mirrors


class RemoteFile(NamedTuple):
    """A file that every mirror holds under `name`, of so many bytes; None: at most `LARGEST`."""

    name: str
    sha256: str
    size: int | None = None


def fetch_all(
    files: Sequence[RemoteFile], folder: Path, mirrors: Sequence[str], pauses: Sequence[float] = PAUSES
) -> list[Path]:
    """The paths of all `files`, see `fetch`; where one cannot be had, the message names all that are needed."""
    try:
        return [fetch(file, folder, mirrors, pauses) for file in files]
    except FileNotFoundError as error:
        missing = [file.name for file in files if not (folder / file.name).exists()]
        more = f"; of its files {', '.join(missing)} are missing" if len(missing) > 1 else ""
        raise FileNotFoundError(f"{error}{more}") from error


def fetch(file: RemoteFile, folder: Path, mirrors: Sequence[str], pauses: Sequence[float] = PAUSES) -> Path:
    """The path of `file` in `folder`, after downloading it from one of `mirrors` if it is not there yet.

    `mirrors` are the addresses of folders. A finished file appears in one move, so a killed download leaves none.

    Raises:
        ValueError: the file in `folder` is another one, or the folder cannot be written to.
        FileNotFoundError: no mirror gave the file.
    """
    target = folder / file.name
    try:
        if not target.exists():
            _check_addresses(mirrors)
            if not mirrors:
                raise _not_found(file, target, "nothing, the list is empty")
            with _lock(folder, file.name):
                if not target.exists():
                    _download(file, target, mirrors, pauses)
        if not target.is_file() and not target.is_dir():
            raise ValueError(f"dataset.data_dir: {target} is no regular file; remove it, or give another folder")
        found = pooch.file_hash(target)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and error.errno is None:
            raise  # our own, with its words
        raise ValueError(f"dataset.data_dir: cannot use {target} ({error.strerror}); give another folder") from error
    if found != file.sha256:
        raise ValueError(
            f"dataset.data_dir: {target} is damaged or another file: its sha256 is {found}, not {file.sha256}; "
            "remove it to download it again, or put the right one there"
        )
    return target


def given(path: Path, source: str) -> Path:
    """The path of a file that is not downloaded, as nobody has published its hash.

    Raises:
        FileNotFoundError: it is not there.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"dataset.data_dir: {path} is not available, and is not downloaded, as it has no published hash: take it "
            f"from {source}, unpack it, and put it there"
        )
    return path


def _check_addresses(mirrors: Sequence[str]) -> None:
    wrong = [mirror for mirror in mirrors if not str(mirror).startswith(("http://", "https://"))]
    if wrong:
        raise ValueError(f"dataset.mirrors: got {wrong[0]!r}, must be addresses of folders, http://... or https://...")


def _lock(folder: Path, name: str) -> AcquireReturnProxy:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"{name}.lock").acquire()
    except OSError as error:
        raise ValueError(
            f"dataset.data_dir: cannot write to {folder} ({error.strerror}); give another folder"
        ) from error


def _download(file: RemoteFile, target: Path, mirrors: Sequence[str], pauses: Sequence[float]) -> None:
    partial = target.with_name(f"{file.name}.part")
    reasons: dict[str, str] = {}
    for pause in (0.0, *pauses):
        time.sleep(pause)
        for mirror in mirrors:
            address = f"{mirror.rstrip('/')}/{file.name}"
            reason = _try_address(address, partial, file)
            if reason is None:
                os.replace(partial, target)
                return
            partial.unlink(missing_ok=True)
            reasons[address] = reason
    raise _not_found(file, target, "; ".join(f"{address} ({reason})" for address, reason in reasons.items()))


def _not_found(file: RemoteFile, target: Path, tried: str) -> FileNotFoundError:
    return FileNotFoundError(
        f"dataset.mirrors: cannot download {file.name}; tried {tried}; "
        f"give another mirror, or put the file into {target.parent.resolve()} by hand"
    )


def _try_address(address: str, partial: Path, file: RemoteFile) -> str | None:
    """Download to `partial`, no more than there can be and no longer than it can take; None, or why it failed."""
    partial.unlink(missing_ok=True)  # a link, perhaps
    try:
        with requests.get(address, stream=True, timeout=TIMEOUT) as answer, partial.open("xb") as content:
            answer.raise_for_status()
            reason = _receive(answer, content, file)
    except OSError as error:  # which every error of requests is
        return str(_root(error))
    if reason is not None:
        return reason
    found = pooch.file_hash(partial)
    return None if found == file.sha256 else f"its sha256 is {found}, not {file.sha256}"


def _receive(answer: requests.Response, content: BinaryIO, file: RemoteFile) -> str | None:
    size = LARGEST if file.size is None else file.size
    deadline = time.monotonic() + max(TIMEOUT, size / SLOWEST)
    with tqdm(total=file.size, unit="B", unit_scale=True, disable=not sys.stderr.isatty()) as bar:
        for chunk in answer.iter_content(CHUNK):
            content.write(chunk)
            bar.update(len(chunk))
            if content.tell() > size:
                return f"it sends more than the {size:,} bytes of the file"
            if time.monotonic() > deadline:
                return f"it sends less than {SLOWEST:,} bytes a second"
    return None


def _root(error: BaseException) -> BaseException:
    """What it began with: "Connection refused", where the last error of the chain repeats the address at length."""
    while error.__context__ is not None:
        error = error.__context__
    return error

"""An event file as TensorBoard reads it, written without a thread."""

from __future__ import annotations

import io
import logging
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from google.protobuf.message import DecodeError
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.summary.writer.record_writer import RecordWriter

from node_cli.files import GrowingFile, cut_down, kind_of, read_bytes
from node_cli.loggers.base import Resume, warn_of_missing

log = logging.getLogger(__name__)

MAX_BYTES = 1 << 32
PATTERN = "events.out.tfevents.*"


HEADER, FOOTER = 12, 4  # bytes around the data of a record


class Record(NamedTuple):
    """An event, and where in its file it lies."""

    start: int
    end: int
    event: Event


class EventFile:
    """A new event file in `folder`; events go to the disk every `flush_secs` seconds, and when they are flushed.

    It begins with a mark for servers that have read an older file of the folder already: what that one holds from
    `first_step` on does not count. They take the first such mark for the start of the run and obey those that follow,
    so the first file of a run has one too.
    """

    def __init__(self, folder: Path, first_step: int, flush_secs: float) -> None:
        # Readers take the files in the order of their names: a run that goes on within a second is still the later one.
        taken = [int(second) for path in folder.glob(PATTERN) if (second := path.name.split(".")[3]).isdecimal()]
        now = max([int(time.time()), *(each + 1 for each in taken)])
        name = f"events.out.tfevents.{now:010d}.{socket.gethostname()}.{os.getpid()}.0"
        self._file = GrowingFile(folder / name)
        self._recent = io.BytesIO()
        self._records = RecordWriter(self._recent)
        self._flush_secs = flush_secs
        self._flushed = time.monotonic()
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        start = SessionLog(status=SessionLog.START)
        self._write(Event(wall_time=time.time(), step=first_step, session_log=start))
        self._hand_over()

    def add(self, step: int, summary: Summary) -> None:
        """Record `summary` under the global step."""
        self._write(Event(wall_time=time.time(), step=step, summary=summary))
        if time.monotonic() - self._flushed >= self._flush_secs:
            self._hand_over()

    def flush(self) -> None:
        """Hand all events to the disk itself. Raises UnwrittenError if some are not there."""
        self._hand_over()
        self._file.sync()

    def close(self) -> None:
        """Flush, and let go of the file.

        Raises:
            UnwrittenError: some events are not on the disk, and are lost.
        """
        self._hand_over()
        self._file.close()

    def _write(self, event: Event) -> None:
        self._records.write(event.SerializeToString())

    def _hand_over(self) -> None:
        self._file.write(self._recent.getvalue())
        self._recent.seek(0)
        self._recent.truncate()
        self._flushed = time.monotonic()


def cut_event_files(folder: Path, resume: Resume | None) -> None:
    """Takes the events after `resume`, and a last one cut short by a kill, out of the event files.

    TensorBoard's faster reader knows no purge: it would show them wherever the resumed run does not write over them.
    What is damaged within a file goes too, and is named, as no reader gets past it; the sound events behind it stay.
    What is no event file at all is named and left alone.
    """
    last = -1
    for path in sorted(folder.glob(PATTERN)):
        if kind_of(path) != "a file":
            log.warning("%s is no regular file: it is left as it is", path)
            continue
        content = read_bytes(path, MAX_BYTES, inside=folder)
        records = list(sound_records(content))
        if content and not records:
            log.warning("%s cannot be read as an event file: it is left as it is", path)
            continue
        if resume is not None:
            _warn_of_damage(path, content, records)
        kept = []
        for record in records:
            if resume is None or _epoch(record.event) > resume.epoch:
                break  # what comes behind the record of an epoch is of that epoch, or later
            if record.event.step <= resume.step:
                kept.append(content[record.start : record.end])
                last = max(last, record.event.step)
        cut_down(path, b"".join(kept))
    if resume is not None:
        warn_of_missing(folder / PATTERN, last, resume)


def _epoch(event: Event) -> int:
    return next((int(value.simple_value) for value in event.summary.value if value.tag == "epoch"), -1)


def _warn_of_damage(path: Path, content: bytes, records: Sequence[Record]) -> None:
    """An end cut short by a kill, or filled with zeros by a crash of the machine, is no damage."""
    starts, ends = [*(record.start for record in records), len(content)], [0, *(record.end for record in records)]
    gaps = [(end, start) for end, start in zip(ends, starts, strict=True) if start > end]
    tail = content[ends[-1] :]
    if len(tail) < HEADER or not any(tail) or (_is_sound(tail, 0, 8) and _end(tail, 0) > len(tail)):
        gaps = [gap for gap in gaps if gap[0] < ends[-1]]
    if gaps:
        size = sum(start - end for end, start in gaps)
        log.warning("%s is damaged from byte %d on: %d bytes are left out, the rest stays", path, gaps[0][0], size)


def sound_records(content: bytes) -> Iterator[Record]:
    """The records of an event file whose checksums are right, wherever they begin.

    Of each 8 bytes are its length, 4 the checksum of that, then come its data and 4 bytes with their checksum.
    """
    start = 0
    while start + HEADER + FOOTER <= len(content):
        end = _end(content, start)
        if end > len(content) or not _is_sound(content, start, start + 8):
            start += 1
            continue
        if _is_sound(content, start + HEADER, end - FOOTER):
            with suppress(DecodeError):
                yield Record(start, end, Event.FromString(content[start + HEADER : end - FOOTER]))
        start = end


def _end(content: bytes, start: int) -> int:
    return start + HEADER + FOOTER + int.from_bytes(content[start : start + 8], "little")


def _is_sound(content: bytes, start: int, end: int) -> bool:
    return bool(masked_crc32c(content[start:end]) == int.from_bytes(content[end : end + 4], "little"))

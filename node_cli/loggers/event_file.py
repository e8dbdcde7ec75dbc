"""An event file as TensorBoard reads it, written without a thread."""

from __future__ import annotations

import io
import os
import socket
import time
from pathlib import Path

from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from node_cli.files import GrowingFile, cut_down

PATTERN = "events.out.tfevents.*"


class EventFile:
    """A new event file in `folder`; events go to the disk every `flush_secs` seconds, and when they are flushed.

    It begins with a mark for servers that have read an older file of the folder already: what that one holds from
    `first_step` on does not count. They take the first such mark for the start of the run and obey those that follow,
    so the first file of a run has one too.
    """

    def __init__(self, folder: Path, first_step: int, flush_secs: float) -> None:
        name = f"events.out.tfevents.{_new_second(folder):010d}.{socket.gethostname()}.{os.getpid()}.0"
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
        """Hand all events to the disk itself.

        Raises:
            UnwrittenError: some are not there.
        """
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


def _new_second(folder: Path) -> int:
    """Readers take the files in the order of their names: a run that goes on within a second is still the later one."""
    taken = [int(second) for path in folder.glob(PATTERN) if (second := path.name.split(".")[3]).isdecimal()]
    return max([int(time.time()), *(second + 1 for second in taken)])


def cut_event_files(folder: Path, first_step: int) -> None:
    """Take the events from `first_step` on, and a last one cut short by a kill, out of the event files.

    TensorBoard's faster reader knows no purge: it would show them wherever the resumed run does not write over them.
    """
    for path in folder.glob(PATTERN):
        kept = io.BytesIO()
        writer = RecordWriter(kept)
        for record in RawEventFileLoader(str(path)).Load():
            if Event.FromString(record).step < first_step:
                writer.write(record)
        cut_down(path, kept.getvalue())

import gzip
import os
import re
import socket
import time

import pytest
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary

from node_cli.loggers.base import Resume
from node_cli.loggers.event_file import EventFile, cut_event_files


def events(path):
    return [Event.FromString(record) for record in RawEventFileLoader(str(path)).Load()]


def loss(value=0.5):
    return Summary(value=[Summary.Value(tag="loss", simple_value=value)])


def steps(path):
    return [event.step for event in events(path) if event.summary.value]


def test_it_is_named_and_begins_as_tensorboard_expects(tmp_path):
    before = time.time()
    EventFile(tmp_path, 7, flush_secs=600).close()
    EventFile(tmp_path, 8, flush_secs=600).close()
    first, second = sorted(tmp_path.iterdir())  # within a second, and still the later one comes later
    pattern = rf"events\.out\.tfevents\.(\d{{10}})\.{re.escape(socket.gethostname())}\.{os.getpid()}\.0"
    match = re.fullmatch(pattern, first.name)
    assert match is not None
    assert before - 1 <= int(match[1]) <= time.time()
    version, start = events(first)
    assert (version.step, version.file_version) == (0, "brain.Event:2")
    assert (start.step, start.session_log.status) == (7, SessionLog.START)
    assert before <= version.wall_time <= start.wall_time <= time.time()
    assert events(second)[1].step == 8


def test_events_go_to_the_disk_when_their_time_has_come(tmp_path):
    file = EventFile(tmp_path, 0, flush_secs=0.1)
    [path] = tmp_path.iterdir()
    file.add(1, loss())
    time.sleep(0.11)
    file.add(2, loss())
    assert steps(path) == [1, 2]
    file.close()


def test_events_wait_for_their_time_or_the_end(tmp_path):
    file = EventFile(tmp_path, 0, flush_secs=600)
    [path] = tmp_path.iterdir()
    file.add(1, loss())
    assert len(events(path)) == 2  # a server may show the run already
    file.close()
    assert steps(path) == [1]


def test_a_flush_does_not_wait(tmp_path):
    file = EventFile(tmp_path, 0, flush_secs=600)
    [path] = tmp_path.iterdir()
    for step in range(3):
        file.add(step, loss())
        file.flush()
        assert steps(path) == [*range(step + 1)]
    file.close()


def test_cut_event_files_hold_what_they_held_before(tmp_path):
    file = EventFile(tmp_path, 0, flush_secs=600)
    for step in (1, 2, 5, 3, 0):
        file.add(step, loss(step))
    file.close()
    [path] = tmp_path.iterdir()
    before = events(path)
    cut_event_files(tmp_path, Resume(2, 0))
    assert events(path) == [event for event in before if event.step < 3]
    assert list(tmp_path.iterdir()) == [path]


def written(folder, *scalars):
    """The content of a small event file with these steps and tags."""
    file = EventFile(folder, 0, flush_secs=600)
    for step, tag, value in scalars:
        file.add(step, Summary(value=[Summary.Value(tag=tag, simple_value=value)]))
    file.close()
    [path] = folder.iterdir()
    return path, path.read_bytes()


def test_a_flipped_bit_costs_one_event_and_is_named(tmp_path, caplog):
    path, content = written(tmp_path, (1, "loss", 0.5), (2, "loss", 0.25), (3, "loss", 0.125))
    whole = events(path)
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        caplog.clear()
        cut_event_files(tmp_path, Resume(9, 0))
        left = events(path)
        assert [event for event in whole if event in left] == left
        assert len(left) == len(whole) - 1
        [told] = [message for message in caplog.messages if "is damaged from byte" in message]
        assert told.startswith(f"{path} is damaged from byte ")
        assert told.endswith(f": {len(content) - path.stat().st_size} bytes are left out, the rest stays")


def test_an_end_cut_short_is_dropped_without_a_word(tmp_path, caplog):
    path, content = written(tmp_path, (1, "loss", 0.5), (2, "loss", 0.25))
    path.write_bytes(content[:1])
    for length in range(len(content) - 40, len(content)):
        path.write_bytes(content[:length])
        cut_event_files(tmp_path, Resume(9, 0))
        assert steps(path) in ([], [1])
    path.write_bytes(content + bytes(5000))  # as after a crash of the machine
    cut_event_files(tmp_path, Resume(9, 0))
    assert path.read_bytes() == content
    assert caplog.messages == []


@pytest.mark.parametrize("kind", ["a gzipped copy", "a text", "a link", "a pipe"])
@pytest.mark.parametrize("resume", [None, Resume(1, 0)])
def test_what_is_no_event_file_is_left_alone_and_named(kind, resume, tmp_path, caplog):
    (tmp_path / "run").mkdir()
    path, content = written(tmp_path / "run", (1, "loss", 0.5))
    odd, thesis = path.with_name(path.name + ".x"), tmp_path / "thesis"
    thesis.write_bytes(content)
    if kind == "a link":
        odd.symlink_to(thesis)
    elif kind == "a pipe":
        os.mkfifo(odd)
    else:
        odd.write_bytes(gzip.compress(content) if kind == "a gzipped copy" else b"my thesis, chapter one" * 20)
    before = odd.read_bytes() if kind != "a pipe" else b""
    cut_event_files(tmp_path / "run", resume)
    [told] = caplog.messages
    assert told.startswith(f"{odd} ")
    assert told.endswith(": it is left as it is")
    if kind != "a pipe":
        assert odd.read_bytes() == before
    assert thesis.read_bytes() == content
    assert steps(path) == ([] if resume is None else [1])


def test_the_record_of_a_later_epoch_goes_with_all_behind_it(tmp_path):
    path, _ = written(tmp_path, (3, "loss", 1), (3, "epoch", 1), (3, "weights", 1), (6, "loss", 2), (6, "epoch", 2))
    cut_event_files(tmp_path, Resume(6, 1))
    assert steps(path) == [3, 3, 3, 6]
    cut_event_files(tmp_path, Resume(3, 0))
    assert steps(path) == [3]

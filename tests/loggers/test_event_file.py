import os
import re
import socket
import time

from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary

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
    cut_event_files(tmp_path, 3)
    assert events(path) == [event for event in before if event.step < 3]
    assert list(tmp_path.iterdir()) == [path]

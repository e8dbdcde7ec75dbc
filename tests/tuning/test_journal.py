"""A study's journal on disks that are full and in machines that crash."""

import json
import subprocess
import sys

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages import JournalStorage

from node_cli.tuning.journal import Journal

ENTRIES = [{"op_code": number, "worker_id": "w"} for number in range(4)]


def lines(*entries):
    return b"".join(json.dumps(entry, separators=(",", ":")).encode() + b"\n" for entry in entries)


def read(path):
    return list(Journal(path).read_logs(0))


@pytest.mark.parametrize("length", [1, 10, len(lines(ENTRIES[3])) - 1])
@pytest.mark.parametrize("opened", ["before", "after"])
def test_a_torn_end_goes_before_the_next_line(length, opened, tmp_path, caplog):
    path = tmp_path / "journal.log"
    path.write_bytes(lines(*ENTRIES[:3]))
    early = Journal(path)
    with path.open("ab") as file:
        file.write(lines(ENTRIES[3])[:length])
    journal = early if opened == "before" else Journal(path)
    journal.append_logs([ENTRIES[3]])
    assert path.read_bytes() == lines(*ENTRIES)
    assert read(path) == ENTRIES
    size = len(lines(*ENTRIES[:3]))
    assert caplog.messages == [f"{path}: its end was torn, and is cut off after {size} of {size + length} bytes"]


@pytest.mark.parametrize("end", [bytes(5000), bytes(50) + b"\n", b'\0\0"}\n', b'{"op_code":\n', b"3\n", b"\xff\n\n"])
def test_what_a_crash_of_the_machine_leaves_is_no_damage(end, tmp_path):
    path = tmp_path / "journal.log"
    path.write_bytes(lines(*ENTRIES[:2]) + end)
    Journal(path).append_logs(ENTRIES[2:])
    assert read(path) == ENTRIES


def test_a_first_line_that_was_torn_is_none(tmp_path):
    path = tmp_path / "journal.log"
    path.write_bytes(b'{"op_co')
    Journal(path).append_logs(ENTRIES)
    assert read(path) == ENTRIES


def test_damage_within_is_named_and_nothing_is_changed(tmp_path):
    path = tmp_path / "journal.log"
    content = lines(*ENTRIES).replace(b'"op_code":1', b'"op_code"#1')
    path.write_bytes(content)
    with pytest.raises(StorageInternalError, match=r"journal\.log, line 2 is damaged, and what follows rests on it"):
        read(path)
    assert path.read_bytes() == content


def test_what_is_no_journal_is_refused(tmp_path):
    path = tmp_path / "journal.log"
    path.write_text("my thesis\nchapter one\n")
    with pytest.raises(StorageInternalError, match="is no journal of a study"):
        Journal(path)
    assert path.read_text() == "my thesis\nchapter one\n"
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(StorageInternalError, match="must be a file of the study, and is a link"):
        Journal(link)


FULL = """
import json, resource, sys
from pathlib import Path
from optuna.exceptions import StorageInternalError
from node_cli.tuning.journal import Journal
journal, entries = Journal(Path(sys.argv[1])), json.loads(sys.argv[2])
journal.append_logs(entries[:1])
resource.setrlimit(resource.RLIMIT_FSIZE, (40, resource.RLIM_INFINITY))  # within the second line
try:
    journal.append_logs(entries[1:])
except StorageInternalError as error:
    print(error)
print(Path(sys.argv[1]).read_text(), end="")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal.append_logs(entries[1:])
"""


def test_a_full_disk_takes_a_change_back_and_the_next_one_is_whole(tmp_path):
    path = tmp_path / "journal.log"
    command = [sys.executable, "-c", FULL, str(path), json.dumps(ENTRIES)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"{path} cannot be written: File too large\n" + lines(ENTRIES[0]).decode()
    assert path.read_bytes() == lines(*ENTRIES)


def test_a_study_outlives_a_tear_at_every_byte_of_its_last_change(tmp_path):
    path = tmp_path / "journal.log"
    study = optuna.create_study(storage=JournalStorage(Journal(path)), study_name="a")
    study.add_trial(optuna.trial.create_trial(value=1.0))
    whole = path.stat().st_size
    study.add_trial(optuna.trial.create_trial(value=2.0))
    content = path.read_bytes()
    for size in range(whole, len(content), 7):
        path.write_bytes(content[:size])
        again = optuna.load_study(storage=JournalStorage(Journal(path)), study_name="a")
        again.add_trial(optuna.trial.create_trial(value=3.0))
        assert optuna.load_study(storage=JournalStorage(Journal(path)), study_name="a").trials[-1].value == 3.0

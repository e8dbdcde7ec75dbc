import logging
import subprocess
import sys

import pytest

from node_cli.runs.log import held_back, log_to

log = logging.getLogger("node_cli.somewhere")
SPEAK = """
import logging, sys
from pathlib import Path
from node_cli.runs.log import log_to
with log_to(Path(sys.argv[1])):
    for number in range(3):
        logging.getLogger("node_cli").info("line %d", number)
sys.stdout = None
"""


def messages(path):
    return [line.split(" ", 3)[-1] for line in path.read_text().splitlines()]


def test_messages_go_to_the_console_and_with_their_times_to_the_file(tmp_path, capsys):
    with log_to(tmp_path / "run.log"):
        assert list(tmp_path.iterdir()) == []  # before the first message
        log.info("loss %.1f", 0.5)
    log.warning("nobody listens any more")
    assert capsys.readouterr().out == "loss 0.5\n"
    assert messages(tmp_path / "run.log") == ["loss 0.5"]


def test_messages_from_before_there_is_a_folder_come_first(tmp_path, capsys):
    with held_back() as earlier:
        log.info("2 of 8 samples are left out")
    assert capsys.readouterr().out == ""
    with log_to(tmp_path / "run.log", earlier):
        log.info("loss 0.5")
    assert capsys.readouterr().out == "2 of 8 samples are left out\nloss 0.5\n"
    assert messages(tmp_path / "run.log") == ["2 of 8 samples are left out", "loss 0.5"]


def test_a_path_that_is_no_text_is_written_as_it_can(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(logging.getLogger("node_cli"), "propagate", False)  # pytest's own log could not be sent on
    with log_to(tmp_path / "run.log"):
        log.info("run folder %s", "outputs/\udcff")
    assert messages(tmp_path / "run.log") == [r"run folder outputs/\udcff"]
    capsys.readouterr()


def test_a_line_cut_short_by_a_kill_stays_alone(tmp_path):
    path = tmp_path / "run.log"
    path.write_text("2026-11-25 10:00:00,000 INFO epo")
    for number in range(2):
        with log_to(path):
            log.info("line %d", number)
    assert messages(path) == ["epo", "line 0", "line 1"]


def test_a_console_that_cannot_be_written_does_not_matter(tmp_path):
    path = tmp_path / "run.log"
    with open("/dev/full", "w") as stdout:
        command = [sys.executable, "-c", SPEAK, str(path)]
        process = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)
    assert "Traceback" not in process.stderr
    assert "Logging error" not in process.stderr
    assert messages(path) == ["line 0", "line 1", "line 2"]


def test_a_message_that_cannot_be_put_together_is_our_own_bug(tmp_path):
    with log_to(tmp_path / "run.log"), pytest.raises(TypeError):
        log.info("loss %d", "much")

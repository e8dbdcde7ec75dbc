import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

from node_cli.loggers.progress import Progress

SCRIPT = """
import sys, time
sys.modules["torch"] = None  # slow to import, and not needed
from node_cli.loggers.progress import Progress
with Progress(total_steps=20, initial=5, enabled=sys.argv[1] == "on") as progress:
    for step in range(15):
        time.sleep(0.02)
        progress.update(batch_size=64, loss=0.25, accuracy=0.875, nfe=32.0)
"""


def on_a_terminal(enabled):
    """What a real process writes to a terminal that is its stderr."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 120, 0, 0))
    with subprocess.Popen([sys.executable, "-c", SCRIPT, enabled], stderr=theirs) as process:
        os.close(theirs)
        written = b""
        try:
            while chunk := os.read(ours, 4096):
                written += chunk
        except OSError:  # Linux's way to say that the other end is closed
            pass
        os.close(ours)
    assert process.returncode == 0
    return written.decode()


def test_a_terminal_shows_steps_and_numbers():
    last = on_a_terminal("on").split("\r")[-2]
    assert "20/20" in last
    for shown in ("loss=0.25", "accuracy=0.875", "nfe=32", "images/s="):
        assert shown in last
    images_per_second = int(last.rpartition("images/s=")[2].split("]")[0])
    assert 500 < images_per_second < 64 / 0.02


def test_a_resumed_bar_starts_where_the_run_stopped():
    assert "5/20" in on_a_terminal("on").split("\r")[1]


def test_it_can_be_turned_off():
    assert on_a_terminal("off") == ""


@pytest.mark.parametrize("enabled", [True, False])
def test_elsewhere_it_is_quiet(enabled, capfd):
    with Progress(total_steps=2, initial=0, enabled=enabled) as progress:
        progress.update(batch_size=8, loss=0.5)
    assert capfd.readouterr() == ("", "")

"""What a terminal shows while a run is trained: recorded from a pseudo-terminal of a given width."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from node_cli.loggers.progress import LEAST_WIDTH, Progress

BAR = re.compile(r" *\d+%\|(.*)\| (\d+)/(\d+) \[[\d:?]+<[\d:?]+(.*)\]")


@contextmanager
def terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Within it, stdout and stderr are a terminal; at its end the list holds all that was written there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
    written, pieces = [], []

    def read() -> None:
        try:
            while piece := os.read(ours, 4096):
                pieces.append(piece)
        except OSError:  # Linux's way to say that the other end is closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    with monkeypatch.context() as patch:
        with os.fdopen(theirs, "w", buffering=1) as stream:
            patch.setattr(sys, "stdout", stream)
            patch.setattr(sys, "stderr", stream)
            yield written
        reader.join()
    os.close(ours)
    written.append(b"".join(pieces).decode())


def screen(written: str, columns: int) -> list[str]:
    """The lines that a terminal of this width shows in the end."""
    rows, row, column = [""], 0, 0
    for token in re.findall(r"\x1b\[A|.|[\r\n]", written):
        if token == "\r":
            column = 0
        elif token in ("\n", "\x1b[A"):
            row += 1 if token == "\n" else -1
        else:
            if column == columns:
                row, column = row + 1, 0
            rows += [""] * (row + 1 - len(rows))
            line = rows[row].ljust(column)
            rows[row] = line[:column] + token + line[column + 1 :]
            column += 1
        rows += [""] * (row + 1 - len(rows))
    return [line.rstrip() for line in rows]


def drawn(written: str) -> list[re.Match[str]]:
    """Each state of the bar."""
    return [match for piece in re.split(r"[\r\n]", written) if (match := BAR.fullmatch(piece.rstrip()))]


@pytest.mark.parametrize("columns", [80, 200])
def test_epochs_with_their_validation_stand_above_a_bar_that_fits(
    columns: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    from node_cli.cli.train import main

    monkeypatch.chdir(tmp_path)
    words = ["model.width=4", "solver=rk4", "solver.num_steps=1", "trainer.epochs=3", "num_threads=1", "device=cpu"]
    monkeypatch.setattr(sys, "argv", ["node-train", *words, "logger=none", "run_dir=mine"])
    with terminal(columns, monkeypatch) as recorded:
        main()
    lines = screen(recorded[0], columns)
    (bar,) = [number for number, line in enumerate(lines) if BAR.fullmatch(line)]
    above, below = "".join(line.ljust(columns) for line in lines[:bar]), lines[bar:]
    for epoch in (1, 2, 3):
        assert re.search(
            rf"epoch {epoch}/3  train/loss \S+  train/accuracy \S+  val/loss \S+  val/accuracy 0\.\d+", above
        )
    assert "%|" not in above
    assert below[0].startswith("100%|")
    assert below[2].startswith("  test error ")
    bars = drawn(recorded[0])
    assert len(bars) > 3
    for match in bars:
        assert len(match[0]) <= columns
        assert len(match[1]) >= LEAST_WIDTH
    figures = bars[-1][4]
    assert re.fullmatch(
        r", loss=[\d.]+, accuracy=[\d.]+, nfe=4" + (r", samples/s=\d+" if columns == 200 else ""), figures
    )


@pytest.mark.parametrize(("columns", "shown"), [(30, 0), (60, 1), (70, 2), (80, 3), (120, 4)])
def test_numbers_give_way_to_the_bar(columns: int, shown: int, monkeypatch: pytest.MonkeyPatch):
    with terminal(columns, monkeypatch) as recorded, Progress(total_steps=2000, initial=5, enabled=True) as progress:
        for _ in range(12):
            time.sleep(0.02)
            progress.advance(64, {"loss": 0.25, "accuracy": 0.875, "nfe": 32.0})
    first, *_, last = drawn(recorded[0])
    assert first[2] == "5"  # a resumed bar starts where the run stopped
    assert (last[2], last[3]) == ("17", "2000")
    names = [figure.partition("=")[0] for figure in last[4].split(", ")[1:]]
    assert names == ["loss", "accuracy", "nfe", "samples/s"][:shown]
    assert len(last[0]) <= columns
    if shown == 4:
        assert 0 < int(last[4].rpartition("samples/s=")[2]) < 64 / 0.02


def test_it_can_be_turned_off(monkeypatch: pytest.MonkeyPatch):
    with terminal(80, monkeypatch) as recorded, Progress(total_steps=2, initial=0, enabled=False) as progress:
        progress.advance(8, {"loss": 0.5})
    assert recorded == [""]


@pytest.mark.parametrize("enabled", [True, False])
def test_elsewhere_it_is_quiet(enabled: bool, capfd: pytest.CaptureFixture[str]):
    with Progress(total_steps=2, initial=0, enabled=enabled) as progress:
        progress.advance(8, {"loss": 0.5})
    assert capfd.readouterr() == ("", "")

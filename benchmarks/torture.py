"""Kills runs, damages checkpoints, starts and ends processes, and counts what is lost.

    python benchmarks/torture.py [--kills 50] [--damages 30] [--starts 20] [--jobs 2] [--seed 0] [--seconds 3600]

Each killed run is one of `torture_runs.KINDS`, on digits: ended at random moments (`torture_runs.MOMENTS`), up to five
times, then let to its end by the same command, and compared with an uninterrupted one bit for bit. Each damaged
checkpoint lies in the folder of a run that is then continued. Each start is of two commands in one folder, of a command
of two processes that is killed, or of one that is not. Exit status 1 if anything was lost; folders of such runs stay.
After --seconds nothing new is begun. --seed repeats the choices, not the moments.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from torture_runs import KINDS, begin, differences, finish, kill_once, num_steps, place_of, said_in, until

MLP = ["model=mlp", "model.width=16", "scheduler=constant", "trainer.keep=3"]
TWO = [*MLP, "trainer.devices=2"]
KILLS_OF_A_RUN = 5


class Torture:
    """Counts, folders and the clock, shared by the threads that work."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder, self.counts = folder, Counter[str]()
        self.losses: list[str] = []
        self._end = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._wholes: dict[str, Path] = {}

    @property
    def is_late(self) -> bool:
        return time.monotonic() > self._end

    def count(self, what: str, number: int = 1) -> None:
        with self._lock:
            self.counts[what] += number
            sys.stderr.write(f"\r{', '.join(f'{count} {name}' for name, count in self.counts.items())}")

    def lose(self, what: str) -> None:
        self.count("lost")
        self.losses.append(what)

    def whole(self, name: str, words: list[str]) -> Path:
        """The folder of an uninterrupted run."""
        with self._lock:
            if name not in self._wholes:
                path = self.folder / f"whole_{len(self._wholes)}"
                status, said = finish(words, path)
                assert status == 0, said
                self._wholes[name] = path
        return self._wholes[name]

    def kill(self, number: int, kind: str, kills: int, rng: random.Random) -> None:
        """One run, killed so many times."""
        folder = self.folder / f"killed_{number}"
        whole = self.whole(kind, KINDS[kind])
        moments = []
        while len(moments) < kills and not self.is_late:
            moment = kill_once(KINDS[kind], folder, rng)
            if not moment:  # it has ended: another run takes the kills that are left
                break
            moments.append(moment)
            self.count("kills")
            self.count(f"of them {moment}")
        status, said = finish(KINDS[kind], folder)
        found = [f"exit status {status}: {said[-300:]}"] if status else differences(folder, whole)
        self.count("runs that were killed")
        if found:
            self.lose(f"{folder} ({kind}; killed {', '.join(moments)}): {'; '.join(found)}")
        else:
            shutil.rmtree(folder)
        if len(moments) < kills and not self.is_late:
            self.kill(number + 1000, kind, kills - len(moments), rng)

    def damage(self, number: int, kind: str, rng: random.Random) -> None:
        """A checkpoint that is damaged is named, and the run goes on from the one before it to the same end."""
        begun = self.whole("damaged", [*MLP, "trainer.epochs=1"])
        whole = self.whole("longer", [*MLP, "trainer.epochs=2"])
        folder = self.folder / f"damaged_{number}"
        shutil.copytree(begun, folder)
        checkpoints = folder / "checkpoints"
        newest = max(checkpoints.glob("step-*.pt"))
        twins = [path for path in checkpoints.glob("*.pt") if path.read_bytes() == newest.read_bytes()]
        content = DAMAGES[kind](newest.read_bytes(), rng)
        targets = list(checkpoints.glob("*.pt")) if number % 5 == 4 else twins
        for path in targets:
            path.write_bytes(content)
        status, said = finish([*MLP, "trainer.epochs=2"], folder)
        self.count("damaged checkpoints")
        is_all = len(targets) > len(twins)
        if ("no checkpoint in" if is_all else "last.pt is damaged, or no checkpoint of node-cli") not in said:
            self.counts["loaded silently"] += 1
            self.lose(f"{folder} ({kind}): it was not named")
        elif is_all:
            self.count("folders without a sound one, refused", int(status == 2))
            if status != 2:
                self.lose(f"{folder} ({kind}, all of them): exit status {status}")
        elif status or differences(folder, whole):
            self.lose(f"{folder} ({kind}): {status} {differences(folder, whole)}")

    def start(self, number: int) -> None:
        """One of `STARTS`."""
        folder = self.folder / f"start_{number}"
        kind = list(STARTS)[number % len(STARTS)]
        found = STARTS[kind](folder, random.Random(number))
        left = _left(folder)
        self.count(kind)
        if found or left:
            self.lose(f"{folder} ({kind}): {found}, processes left {left}")
            for pid in left:
                os.kill(pid, signal.SIGKILL)


def _two_at_once(folder: Path, rng: random.Random) -> str:
    """One trains, the other is refused, whichever comes first."""
    words = [*MLP, "trainer.epochs=1", "resume=null"]
    first = begin([*words, "seed=1"], folder)
    time.sleep(rng.uniform(0, 3))
    statuses = [begin([*words, "seed=2"], folder).wait(), first.wait()]
    seed = json.loads((folder / "summary.json").read_text())["config"]["seed"]
    return "" if statuses == ([2, 0] if seed == 1 else [0, 2]) else f"exit statuses {statuses}, the run of seed {seed}"


def _killed_command(folder: Path, rng: random.Random) -> str:
    """Its processes end with it, wherever they are, and the run goes on: it would have been a long one."""
    process, steps = begin([*TWO, "trainer.epochs=100000"], folder), rng.choice((0, 1, 50))
    came = until(process, lambda: len(_left(folder)) > 1 and num_steps(folder) >= steps, give_up_after=600)
    process.kill()
    process.wait()
    end = time.monotonic() + 60
    while _left(folder) and time.monotonic() < end:
        time.sleep(0.1)
    if not came or _left(folder):
        return "orphans" if came else "it ended by itself"
    return _ends_cleanly(folder, ["trainer.epochs=100000", f"trainer.max_steps={num_steps(folder) + 3}"])


def _clean_start(folder: Path, rng: random.Random) -> str:
    return _ends_cleanly(folder, ["trainer.epochs=1"])


def _ends_cleanly(folder: Path, length: list[str]) -> str:
    """What is wrong with a run of two processes that is begun or goes on, and with what it says."""
    before = len(said_in(folder))
    status, said = finish([*TWO, *length], folder)
    is_clean = not status and "Traceback" not in said[before:] and "warn" not in said[before:].lower()
    return "" if is_clean else f"exit status {status}: {said[before:][-300:]}"


STARTS = {
    "starts of two commands at once": _two_at_once,
    "commands of two processes that were killed": _killed_command,
    "starts of two processes": _clean_start,
}


def _left(folder: Path) -> list[int]:
    """The processes that are at work on the run in this folder."""
    return [pid for pid in _processes() if _place(pid) == str(place_of(folder))]


def _flipped(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]


def _zeroed(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(0, len(content) - 512)
    zeroed = content[:place] + bytes(512) + content[place + 512 :]
    return zeroed if zeroed != content else _zeroed(content, rng)


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "cut short": lambda content, rng: content[: rng.randrange(1, len(content))],
    "a bit flipped": _flipped,
    "empty": lambda content, rng: b"",
    "zeros": _zeroed,
    "noise": lambda content, rng: rng.randbytes(len(content)),
    "longer": lambda content, rng: content + rng.randbytes(100),
}


def _processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _place(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("kills", 50), ("damages", 30), ("starts", 20), ("jobs", 2), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seconds", type=float, default=3600.0)
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="torture_"))
    torture, kinds = Torture(folder, asked.seconds), itertools.cycle(KINDS)
    begun = time.monotonic()
    with ThreadPoolExecutor(asked.jobs) as pool:
        work = []
        for number, first in enumerate(range(0, asked.kills, KILLS_OF_A_RUN)):
            kills = min(KILLS_OF_A_RUN, asked.kills - first)
            work.append(pool.submit(torture.kill, number, next(kinds), kills, random.Random(f"{asked.seed} {number}")))
        for number, kind in zip(range(asked.damages), itertools.cycle(DAMAGES), strict=False):
            work.append(pool.submit(torture.damage, number, kind, random.Random(f"{asked.seed} damage {number}")))
        for task in work:
            task.result()
    for number in range(asked.starts):  # one after the other: each has two processes
        if not torture.is_late:
            torture.start(number)
    sys.stderr.write("\n")
    bad = {name: torture.counts.pop(name, 0) for name in ("loaded silently", "lost")}
    for name, count in [*torture.counts.items(), *bad.items()]:
        print(f"{count:5d}  {name}")
    print(f"in {time.monotonic() - begun:.0f} s")
    for loss in torture.losses:
        print(loss)
    if not torture.losses:
        shutil.rmtree(folder)
    sys.exit(bool(torture.losses))


if __name__ == "__main__":
    main()

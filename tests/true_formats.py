"""Small files in the formats of the data sets that are downloaded, and where the loaders look for them."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from node_cli.datasets.download import RemoteFile
from node_cli.datasets.series import character_trajectories, human_activity, physionet2012, ushcn


def remote(path: Path) -> RemoteFile:
    """The file as if it had been published."""
    return RemoteFile(path.name, hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)


def write_patients(folder: Path, *, count: int = 20, extra: str = "") -> None:
    """Records of patients, half of whom die, with `set-a.tar.gz` and `Outcomes-a.txt` as PhysioNet has them."""
    folder.mkdir(parents=True)
    outcomes = ["RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death"]
    with tarfile.open(folder / "set-a.tar.gz", "w:gz") as archive:
        for k in range(count):
            number = 132539 + k
            lines = ["Time,Parameter,Value", f"00:00,RecordID,{number}", f"00:00,Age,{50 + k}", "00:00,Height,-1"]
            lines += [f"00:07,HR,{70 + k}", f"00:08,HR,{74 + k}", "00:37,MechVent,1", "00:37,,-1"]
            lines += [f"{hour:02}:{7 * hour % 60:02},pH,{7 + 0.01 * k + 0.001 * hour:.3f}" for hour in range(1, 48, 2)]
            content = "\n".join([*lines, *([extra] if extra else [])]).encode()
            member = tarfile.TarInfo(f"./set-a/{number}.txt")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
            outcomes.append(f"{number},6,1,5,-1,{k % 2}")
    (folder / "Outcomes-a.txt").write_text("\n".join(outcomes) + "\n")


def write_stations(folder: Path, *, count: int = 10, length: int = 120) -> None:
    """Stations with unsorted times and masks, as GRU-ODE-Bayes has them."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    rows = [",".join(ushcn.HEADER)]
    for station in range(count):
        times = random.permutation(np.arange(length)) * 1.5 + 0.5
        mask = random.random((length, 5)) < 0.4
        values = random.normal(size=(length, 5)) * mask
        rows += [
            ",".join(map(str, [float(station), time, *value, *seen.astype(float)]))
            for time, value, seen in zip(times, values, mask, strict=True)
        ]
    (folder / "small_chunked_sporadic.csv").write_text("\n".join(rows) + "\n")


def write_recordings(folder: Path, *, count: int = 10, length: int = 240) -> None:
    """Recordings of tags, each activity for a while, in the zip of UCI."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    activities = list(human_activity.CLASS_OF)
    lines = []
    for recording in range(count):
        ticks = 633790226051280329
        for k in range(length):
            tag = list(human_activity.TAGS)[k % 4]
            ticks += 270_000
            x, y, z = random.normal(size=3)
            activity = activities[k * len(activities) // length]
            date = "27.05.2009 14:03:25:127"
            lines.append(f"A{recording:02},{tag},{ticks},{date},{x:.6f},{y:.6f},{z:.6f},{activity}")
    with zipfile.ZipFile(folder / human_activity.ARCHIVE.name, "w") as archive:
        archive.writestr(human_activity.MEMBER, "\n".join(lines) + "\n")


def write_letters(folder: Path, *, count: int = 40) -> None:
    """Letters of different lengths, in the zip and the MATLAB file of UCI."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    letters = np.empty((1, count), dtype=object)
    for k in range(count):
        letters[0, k] = random.normal(size=(3, 60 + k % 7))
    key = np.array(["a", "b"], dtype=object)[None]
    labels = 1 + np.arange(count, dtype=np.uint8)[None] % 2
    file = io.BytesIO()
    savemat(file, {"mixout": letters, "consts": {"key": key, "charlabels": labels, "count": count}})
    with zipfile.ZipFile(folder / character_trajectories.ARCHIVE.name, "w") as archive:
        archive.writestr(character_trajectories.MEMBER, file.getvalue())


def write_events(folder: Path, *, num_signal: int = 60, num_background: int = 30) -> None:
    """Events as UCI has them: two counts, then rows of numbers; one column has a value that comes back."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    rows = random.normal(size=(num_signal + num_background, 6))
    rows[:20, 3] = -7.0
    rows[5] = -999.0
    lines = [f" {num_signal} {num_background}", *(" ".join(f"{value: .6E}" for value in row) for row in rows)]
    (folder / "MiniBooNE_PID.txt").write_text("\n".join(lines) + "\n")


def write_all(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """All of these in their folders below `folder`; the loaders take them for the published ones."""
    write_patients(folder / "physionet2012")
    write_stations(folder / "ushcn")
    write_recordings(folder / "human_activity")
    write_letters(folder / "character_trajectories")
    write_events(folder / "miniboone")
    publish(folder, patch)


def publish(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Lets loaders take the files in the folders below `folder` for the published ones."""
    for table in (physionet2012.RECORDS, physionet2012.OUTCOMES):
        path = folder / "physionet2012" / table["a"].name
        if path.exists():
            patch.setitem(table, "a", remote(path))
    for module, name in ((ushcn, "FILE"), (human_activity, "ARCHIVE"), (character_trajectories, "ARCHIVE")):
        path = folder / module.__name__.rpartition(".")[2] / getattr(module, name).name
        if path.exists():
            patch.setattr(module, name, remote(path))

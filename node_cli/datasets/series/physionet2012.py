"""Two days of intensive care of thousands of patients: who dies?"""

from __future__ import annotations

import logging
import tarfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from node_cli.datasets.download import RemoteFile, fetch
from node_cli.datasets.series.averaging import averaged
from node_cli.datasets.series.raw import RawSeries, Series
from node_cli.datasets.series.source import series_dataset
from node_cli.ode.checks import require_at_least

log = logging.getLogger(__name__)

# The hashes of the sets are those of github.com/randolf-scholz/tsdm; those of the outcomes are from users of the files.
RECORDS = {
    "a": RemoteFile("set-a.tar.gz", "8cb250f179cd0952b4b9ebcf8954b63d70383131670fac1cfee13deaa13ca920"),
    "b": RemoteFile("set-b.tar.gz", "b1637a2a423a8e76f8f087896cfc5fdf28f88519e1f4e874fbda69b2a64dac30"),
    "c": RemoteFile("set-c.tar.gz", "a4a56b95bcee4d50a3874fe298bf2998f2ed0dd98a676579573dc10419329ee1"),
}
OUTCOMES = {
    "a": RemoteFile("Outcomes-a.txt", "2613ea60ccda29f87571a7d6b09ad130858a8ccd66325bd073365925026883c2"),
    "b": RemoteFile("Outcomes-b.txt", "1305f29734da374a809483229a99f33a9230aa8d4fa74b1a2d6ad788136423d5"),
    "c": RemoteFile("Outcomes-c.txt", "0b32dcb7753c0f18f2f5fde498a28618b8879c5e527ce0dae8ad120dd7e205c9"),
}
CHANNELS = (
    *("Age", "Gender", "Height", "ICUType", "Weight", "Albumin", "ALP", "ALT", "AST", "Bilirubin", "BUN"),
    *("Cholesterol", "Creatinine", "DiasABP", "FiO2", "GCS", "Glucose", "HCO3", "HCT", "HR", "K", "Lactate", "Mg"),
    *("MAP", "MechVent", "Na", "NIDiasABP", "NIMAP", "NISysABP", "PaCO2", "PaO2", "pH", "Platelets", "RespRate"),
    *("SaO2", "SysABP", "Temp", "TroponinI", "TroponinT", "Urine", "WBC"),
)
DEATH = "In-hospital_death"  # a column of the outcomes
MINUTES = 60  # of an hour


@series_dataset
def physionet2012(data_dir: str, mirrors: list[str], sets: list[str], spacing: float) -> RawSeries:
    """The first 48 hours of patients in intensive care, 41 channels; the classes are whether they left hospital alive.

    What was recorded once, on admission, is a value at time 0. A value of -1 is missing. Channels with one value
    alone, as of mechanical ventilation, and patients with fewer than two times are left out.

    Args:
        data_dir: its subfolder physionet2012 has the files, or gets them.
        mirrors: where to download from.
        sets: some of a, b, c, of 4,000 patients each.
        spacing: times are rounded to multiples of so many hours, and values at the same one are averaged; 0: to the
            minute, as they were recorded.

    Source: Silva et al., Predicting In-Hospital Mortality of ICU Patients: The PhysioNet/Computing in Cardiology
    Challenge 2012.

    Raises:
        ValueError: a file is damaged or a key out of range.
        FileNotFoundError: a file is neither there nor to be had.
    """
    require_at_least("spacing", spacing, 0)
    if not sets or len(set(sets)) < len(sets) or not set(sets) <= RECORDS.keys():
        raise ValueError(f"sets must be some of a, b, c, each once, got {sets}")
    folder = Path(data_dir) / "physionet2012"
    series: list[Series] = []
    died: list[int] = []
    for name in sets:
        outcomes = _outcomes(fetch(OUTCOMES[name], folder, mirrors))
        path = fetch(RECORDS[name], folder, mirrors)
        for patient, lines in _records(path):
            if patient not in outcomes:
                raise ValueError(f"{path}: patient {patient} has no outcome in {OUTCOMES[name].name}")
            series.append(Series(patient, *_measured(f"{path}: {patient}.txt", lines, spacing)))
            died.append(outcomes[patient])
    return _useful(series, died)


def _outcomes(path: Path) -> dict[str, int]:
    """Whether each patient died, 1 or 0."""
    header, *rows = (line.split(",") for line in path.read_text("utf-8").split())
    place = header.index(DEATH)
    return {row[0]: int(row[place]) for row in rows}


def _records(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The number of each patient, and the lines of the record."""
    with tarfile.open(path) as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.isreg() and member.name.endswith(".txt") else None
            if stream is not None:
                yield Path(member.name).stem, stream.read().decode("utf-8").split()


def _measured(where: str, lines: list[str], spacing: float) -> tuple[Tensor, Tensor]:
    """Times `(T,)` in hours, and values `(T, channels)`."""
    places = {name: place for place, name in enumerate(CHANNELS)}
    found: list[tuple[int, int, float]] = []
    for line in lines[1:]:
        clock, name, value = line.split(",")
        if name in places and float(value) >= 0:
            hours, minutes = clock.split(":")
            total = MINUTES * int(hours) + int(minutes)
            found.append((round(total / MINUTES / spacing) if spacing else total, places[name], float(value)))
        elif name not in (*CHANNELS, "RecordID", ""):
            raise ValueError(f"{where}: holds {name}, which is no measurement of the challenge")
    steps, values = averaged(found, len(CHANNELS))
    return steps * spacing if spacing else steps / MINUTES, values


def _useful(series: list[Series], died: list[int]) -> RawSeries:
    """Without channels that never change, times without a value in the others, and patients without two times."""
    values = torch.cat([each.values for each in series])
    low, high = values.nan_to_num(torch.inf).amin(0), values.nan_to_num(-torch.inf).amax(0)
    kept = (low < high).nonzero().flatten()
    names = tuple(CHANNELS[place] for place in kept.tolist())
    left_out = [name for name in CHANNELS if name not in names]
    if left_out:
        log.info("dataset: channels without two different values are left out: %s", ", ".join(left_out))
    found = []
    for each, label in zip(series, died, strict=True):
        rows = each.values[:, kept].isfinite().any(1)
        if rows.sum() > 1:
            found.append((Series(each.name, each.times[rows], each.values[rows][:, kept]), label))
        else:
            log.info("dataset: patient %s has no two times, and is left out", each.name)
    if not found:
        raise ValueError("dataset: no patient has two times with values that differ between patients")
    chosen, labels = zip(*found, strict=True)
    return RawSeries(chosen, names, time_unit="hour", targets=torch.tensor(labels), class_names=("survived", "died"))

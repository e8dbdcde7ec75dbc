"""The series that are downloaded, on small files of their true formats."""

import zipfile

import numpy as np
import pytest
import torch
from shipped import dataset_keys
from true_formats import publish, write_letters, write_patients, write_recordings, write_stations

from node_cli.datasets.series.character_trajectories import character_trajectories
from node_cli.datasets.series.human_activity import ARCHIVE, MEMBER, human_activity
from node_cli.datasets.series.physionet2012 import physionet2012
from node_cli.datasets.series.ushcn import ushcn

WRITERS = {
    physionet2012: write_patients,
    ushcn: write_stations,
    human_activity: write_recordings,
    character_trajectories: write_letters,
}


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Writes the files of a loader, unless they are there, and loads them with other keys than those of its YAML."""

    def make(function, *, written=None, **changes):
        folder = tmp_path / function.__name__
        if not folder.exists():
            WRITERS[function](folder, **(written or {}))
        publish(tmp_path, monkeypatch)
        return function(**{**dataset_keys(function.__name__), "data_dir": str(tmp_path), **changes})

    return make


def observed(dataset, split="train"):
    """Values in the user's units, NaN where nothing was observed."""
    batch = dataset.splits[split]
    values = dataset.offers["units"].values(batch["values"])
    return values.where(batch["mask"] | batch["target"], torch.nan)


def test_patients(made):
    dataset = made(physionet2012, val=4, test=4)
    offers = dataset.offers
    assert offers["channel_names"] == ("Age", "HR", "pH")  # the others have no two values
    assert (offers["class_names"], offers["class_counts"]) == (("survived", "died"), (6, 6))
    first = dataset.sample_names["train"].index(min(dataset.sample_names["train"]))
    number = int(dataset.sample_names["train"][first]) - 132539
    times = offers["units"].times(dataset.splits["train"]["times"])[first]
    torch.testing.assert_close(times[:3], torch.tensor([0, 0.1, 1.1]).double())
    values = observed(dataset)[first]
    np.testing.assert_allclose(values[:2, :2], [[50 + number, np.nan], [np.nan, 72 + number]], rtol=1e-5)
    assert dataset.splits["train"]["targets"][first] == number % 2


def test_patients_to_the_minute(made):
    dataset = made(physionet2012, val=4, test=4, spacing=0)
    times = dataset.offers["units"].times(dataset.splits["train"]["times"])[0]
    torch.testing.assert_close(times[:3] * 60, torch.tensor([0, 7.0, 8.0]).double())


def test_stations(made):
    dataset = made(ushcn, val=2, test=2)
    assert dataset.splits["val"]["times"].shape == (2, 120)
    assert dataset.splits["val"]["mask"].any(2)[:, 100:].sum() == 0
    times = dataset.offers["units"].times(dataset.splits["train"]["times"])[0]
    torch.testing.assert_close(times, torch.arange(120).double() * 1.5 + 0.5)
    share = (dataset.splits["train"]["mask"]).double().mean().item()
    assert share == pytest.approx(0.4, abs=0.05)
    assert "class_names" not in dataset.offers


def test_recordings_are_cut_and_kept_together(made):
    dataset = made(human_activity, num_times=10, val=2, test=2, context=5)
    offers, names = dataset.offers, dataset.sample_names
    recordings = {split: {name.partition("/")[0] for name in names[split]} for split in names}
    assert [len(some) for some in recordings.values()] == [6, 2, 2]
    assert len(set.union(*recordings.values())) == 10
    train = dataset.splits["train"]
    assert train["times"].shape == (6 * 24, 10)
    assert train["mask"].any(1).all()
    assert train["mask"].sum(2).unique().tolist() == [3]  # one tag at a time
    times = offers["units"].times(train["times"])
    assert ((times[:, 1] - 0.027).abs() < 0.011).all()
    assert offers["channel_names"][:4] == ("left_ankle_x", "left_ankle_y", "left_ankle_z", "right_ankle_x")
    assert min(offers["class_counts"]) > 0
    assert len(offers["class_names"]) == 7


def test_letters(made):
    dataset = made(character_trajectories)
    assert dataset.offers["class_names"] == ("a", "b")
    counts = {name: split["targets"].bincount().tolist() for name, split in dataset.splits.items()}
    assert counts == {"train": [14, 14], "val": [3, 3], "test": [3, 3]}
    lengths = observed(dataset).isfinite().all(2).sum(1)
    expected = [60 + (int(name.split()[1]) - 1) % 7 for name in dataset.sample_names["train"]]
    assert lengths.tolist() == expected


MISTAKES = [
    (physionet2012, {"sets": []}, {}, "sets must be some of a, b, c, each once, got []"),
    (physionet2012, {"sets": ["a", "a"]}, {}, "sets must be some of a, b, c, each once, got ['a', 'a']"),
    (physionet2012, {"sets": ["d"]}, {}, "sets must be some of a, b, c, each once, got ['d']"),
    (physionet2012, {"spacing": -1.0}, {}, "spacing must be at least 0, got -1.0"),
    (physionet2012, {"sets": ["b"], "mirrors": []}, {}, "dataset.mirrors: cannot download Outcomes-b.txt; tried nothi"),
    (physionet2012, {}, {"extra": "01:00,Mood,3"}, "{folder}/set-a.tar.gz: 132539.txt: holds Mood, which is no measur"),
    (human_activity, {"num_times": 1}, {}, "num_times must be at least 2, got 1"),
    (human_activity, {"num_times": 999}, {}, "num_times must be at most the times of a recording, got 999"),
    (human_activity, {"val": 5}, {}, "dataset.val=5, dataset.test=5: there are 10 groups of series, which leaves none"),
]


@pytest.mark.parametrize(("function", "change", "written", "message"), MISTAKES, ids=range(len(MISTAKES)))
def test_each_mistake_is_one_line(function, change, written, message, made, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        made(function, written=written, **change)
    assert str(error.value).startswith(message.format(folder=tmp_path / function.__name__))
    assert "\n" not in str(error.value)


def test_a_row_that_is_none_is_named(made, tmp_path):
    folder = tmp_path / "human_activity"
    write_recordings(folder)
    with zipfile.ZipFile(folder / ARCHIVE.name) as archive:
        lines = archive.read(MEMBER).decode().splitlines()
    lines[6] = lines[6].replace("walking", "dancing")
    with zipfile.ZipFile(folder / ARCHIVE.name, "w") as archive:
        archive.writestr(MEMBER, "\n".join(lines))
    with pytest.raises(ValueError, match="row 7 is no location of a tag with an activity"):
        made(human_activity)


@pytest.mark.parametrize("function", WRITERS)
def test_a_file_of_another_hash_is_refused(function, tmp_path):
    folder = tmp_path / function.__name__
    WRITERS[function](folder)
    with pytest.raises(ValueError, match="is damaged or another file: its sha256 is"):
        function(**{**dataset_keys(function.__name__), "data_dir": str(tmp_path)})

"""Mistakes with time series: one line, exit status 2, and nothing written, before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

TABLES = {
    "wide.csv": "day,a,b\n" + "".join(f"{t},{1 + t % 4},{2 - t % 3}\n" for t in range(30)),
    "three.csv": "day,a,b,c\n" + "".join(f"{t},{t % 4},{t % 3},{t % 5}\n" for t in range(30)),
    "many.csv": "who,day,a,dose\n" + "".join(f"{who},{t},{t % 5 + 1},{t % 2}\n" for who in "xyz" for t in range(8)),
    "text.csv": "day,a\n0,1\n1,two\n2,3\n3,4\n",
    "twice.csv": "day,a\n0,1\n1,2\n1,3\n3,4\n",
    "back.csv": "day,a\n0,1\n2,2\n1,3\n3,4\n",
    "lone.csv": "who,day,a\nx,0,1\nx,1,2\nx,2,2\ny,0,1\n",
    "feb.csv": "day,a\n2024-02-28,1\n2024-02-30,2\n2024-03-01,3\n",
    "undosed.csv": "day,a,dose\n0,1,0\n1,2,1\n2,3,\n3,4,0\n",
    "unseen.csv": "day,a\n" + "".join(f"{t},{t % 5 if t < 24 else ''}\n" for t in range(30)),
}


def table(name: str, *words: str) -> list[str]:
    return ["dataset=csv", f"dataset.path={name}", "dataset.time=day", *words]


# What is typed after node-train task=trajectory, and the line that answers, or its beginning.
MISTAKES = {
    "a column that is none": (
        ["dataset=csv", "dataset.path=wide.csv", "dataset.time=dya"],
        "dataset.time: wide.csv has no column dya: did you mean day? its columns are day, a, b",
    ),
    "no table": (
        ["dataset=csv"],
        "dataset.path is required: set dataset.path=..., and, of series, dataset.time=...",
    ),
    "no table but its time": (["dataset=csv", "dataset.time=day"], "dataset.path is required: set dataset.path=..."),
    "no time": (
        ["dataset=csv", "dataset.path=wide.csv"],
        "dataset.time is required: set it to the column of times of wide.csv, whose columns are day, a, b",
    ),
    "no time of dates": (
        ["dataset=csv", "dataset.path=feb.csv"],
        "dataset.path: feb.csv, row 2, column day: '2024-02-28' is not a number; name the columns of numbers in",
    ),
    "no time of several series": (
        ["dataset=csv", "dataset.path=many.csv", "dataset.series=who"],
        "dataset.time is required: set it to the column of times of many.csv, whose columns are who, day, a, dose",
    ),
    "no columns": (table("wide.csv", "dataset.columns=[]"), "dataset.columns must name at least one column of values"),
    "a unit too few": (
        table("wide.csv", "dataset.units=[kg]"),
        "dataset.units must be a word for each of a, b, or null, got ['kg']",
    ),
    "no file": (table("none.csv"), "dataset.path: there is no file none.csv"),
    "text": (table("text.csv"), "dataset.path: text.csv, row 3, column a: 'two' is not a number"),
    "a time twice": (
        table("twice.csv"),
        "dataset.path: twice.csv, row 4, column day: the time '1' is there already in",
    ),
    "back in time": (
        table("back.csv"),
        "dataset.path: back.csv, row 4, column day: the time '1' is before that of row",
    ),
    "one time": (table("lone.csv", "dataset.series=who"), "dataset.path: lone.csv: series y has 1 time (row 5)"),
    "no such day": (table("feb.csv"), "dataset.path: feb.csv, row 3, column day: '2024-02-30' is neither a number nor"),
    "an unknown dose": (
        table("undosed.csv", "dataset.controls=[dose]"),
        "dataset.path: undosed.csv, row 4, column dose: it is missing, and a control must be known at all times",
    ),
    "no logarithm": (table("wide.csv", "dataset.log=true"), "dataset.log=true needs values above 0: series wide.csv"),
    "a window longer than the series": (
        table("wide.csv", "dataset.window=40"),
        "dataset.window=40, dataset.context=1: no window fits into train; the longest series has 30 times",
    ),
    "a context as long as the window": (
        table("wide.csv", "dataset.window=5", "dataset.context=5"),
        "dataset.window must be more than dataset.context=5, or nothing is left to forecast, got 5",
    ),
    "nothing left to train on": (
        table("wide.csv", "dataset.val=20", "dataset.test=20"),
        "dataset.val=20, dataset.test=20: series wide.csv has 30 times, which leaves 0 for training",
    ),
    "one series to split": (table("wide.csv", "dataset.split=series"), "dataset.val=0.1 of 1 series is none"),
    "three channels of a Hamiltonian": (
        table("three.csv", "model=hamiltonian"),
        "model=hamiltonian needs an even number of channels: positions, then as many momenta, got 3",
    ),
    "equations of other channels": (
        table("three.csv", "model=known"),
        "model.equations=lotka_volterra needs 2 channels, got 3 (a, b, c)",
    ),
    "no such parameter": (
        ["model=known", "model.parameters={alhpa: 1.0}"],
        "model.parameters must name some of alpha, beta, gamma, delta, got alhpa",
    ),
    "a start out of bounds": (
        ["model=known", "model.parameters={alpha: 2.0}", "model.bounds={alpha: [0.1, 1.0]}"],
        "model.parameters.alpha must be above 0.1 and below 1, got 2",
    ),
    "bounds the wrong way round": (
        ["model=known", "model.bounds={alpha: [1.0, 0.1]}"],
        "model.bounds.alpha must be two numbers, the first one smaller (null: no bound), got [1.0, 0.1]",
    ),
    "a start that sees everything": (
        ["model.start=last"],
        "model.start=last returns what it sees, and in training it sees everything, so that nothing is learned: set",
    ),
    "a season longer than the series": (
        ["task.season=100"],
        "task.season=100: no value of val has one a season before that the model sees; the longest series has 16 times",
    ),
    "windows longer than the series": (
        ["task.strategy=windows", "task.window=100"],
        "task.window=100 needs a series of at least 100 times, and the longest one of train has 13",
    ),
    "more segments than steps": (
        ["task.strategy=multiple_shooting", "task.num_segments=100"],
        "task.num_segments=100 needs a series of at least 101 times, and the longest one of train has 13",
    ),
    "logarithms of angles": (
        ["dataset=pendulum", "dataset.num_times=3", "task.loss=log_mse"],
        "task.loss=log_mse needs values above 0, got -",
    ),
    "slopes of what is not observed": (
        ["task.match_until=0.5", "model.augment_dim=2"],
        "task.match_until needs the slopes of observed values, which this model does not have: set it to 0, or take a",
    ),
    "a weight too few": (
        ["task.channel_weights=[1]"],
        "task.channel_weights must be a number, 0 or more but not all 0, for each of hare, lynx, got [1]",
    ),
    "windows that are not cut": (
        ["task.window=5", "task.strategy=full"],
        "task.window=5 has no effect with task.strategy=full: set task.strategy=windows, or leave it out",
    ),
    "segments of windows": (
        ["task.strategy=windows", "task.num_segments=3"],
        "task.num_segments=3 has no effect with task.strategy=windows: set task.strategy=multiple_shooting, or leave",
    ),
    "continuity of a whole": (
        ["task.strategy=growing", "task.continuity=2.0"],
        "task.continuity=2.0 has no effect with task.strategy=growing: set task.strategy=multiple_shooting, or leave",
    ),
    "what grows of nothing": (
        ["task.strategy=multiple_shooting", "model.start=learned", "task.grow_from=0.5"],
        "task.grow_from=0.5 has no effect with task.strategy=multiple_shooting: set task.strategy=growing, or leave",
    ),
    "an end of what does not grow": (
        ["task.grow_until=0.9"],
        "task.grow_until=0.9 has no effect with task.strategy=full: set task.strategy=growing, or leave it out",
    ),
    "a strategy without a solve": (
        ["task.match_until=1.0", "task.strategy=windows"],
        "task.strategy='windows' has no effect with task.match_until=1, as training then solves nothing: lower that",
    ),
    "a weight of the only channel": (
        ["dataset=influenza", "task.channel_weights=[2.0]"],
        "task.channel_weights=[2.0] has no effect on data of one channel: take more channels, or leave it out",
    ),
    "an encoder that does not encode": (
        ["model.encoder_width=8"],
        "model.encoder_width=8 has no effect with model.start=first: set model.start=encoder, or leave it out",
    ),
    "between controls that there are not": (
        ["model=second_order", "model.controls_between=linear"],
        "model.controls_between='linear' has no effect on data without controls: name them in dataset.controls, or",
    ),
    "a threshold that is never applied": (
        ["model=sindy", "model.prune_at=[]", "model.threshold=0.2"],
        "model.threshold=0.2 has no effect with model.prune_at=[]: say when to prune, or leave it out",
    ),
    "nothing to prune": (
        ["model=sindy", "model.prune_at=[0.5]", "model.threshold=0.0"],
        "model.prune_at=[0.5] has no effect with model.threshold=0: set it above 0, or leave it out",
    ),
    "a seed of a split in time": (
        ["dataset.split_seed=1"],
        "dataset.split_seed has no effect with dataset.split=time, got 1: set it to 0",
    ),
    "a seed of years": (
        ["dataset=storms", "dataset.split_seed=1"],
        "dataset.split_seed has no effect on series that are split by their years, got 1: set it to 0",
    ),
    "a seed of no split": (
        ["dataset=pendulum", "dataset.num_times=3", "dataset.val=0", "dataset.test=0", "dataset.split_seed=1"],
        "dataset.split_seed has no effect with dataset.val=0 and dataset.test=0, got 1: set it to 0",
    ),
    "a seed without chance": (
        ["dataset=spiral", "dataset.data_seed=1"],
        "dataset.data_seed has no effect on a fixed start, without noise and irregular times, got 1: set it to 0",
    ),
    "a stride without windows": (
        ["dataset.stride=2"],
        "dataset.stride has no effect without dataset.window, got 2: set it to 1",
    ),
    "a context without windows": (
        ["dataset.context=2"],
        "dataset.context has no effect with dataset.split=time and no dataset.window, got 2: set it to 1",
    ),
    "a window beside a horizon": (
        ["dataset=storms", "dataset.window=9"],
        "dataset.window has no effect with dataset.horizon=24: set one of them to null",
    ),
    "a penalty of no network": (
        ["model=known", "model.network_penalty=0.1"],
        "unknown key model.network_penalty: model=hybrid has model.network_penalty; model=known takes model.equations",
    ),
    "learned starts of windows": (
        ["model.start=learned", "task.strategy=windows"],
        "model.start must not be learned for samples that are no whole ones of the training data, such as those of",
    ),
    "nothing to train": (
        ["model=known", "model.start=first", "model.fixed={alpha: 0.5, beta: 0.03, gamma: 0.8, delta: 0.02}"],
        "model.fixed leaves nothing to train, got {'alpha': 0.5, 'beta': 0.03, 'gamma': 0.8, 'delta': 0.02}: leave a",
    ),
    "matching of no vector field": (
        ["model=gru", "task.match_until=0.5"],
        "task.match_until needs the slopes of observed values, which this model does not have: set it to 0, or take a",
    ),
    "a hidden part of equations that have none": (
        ["model=known", "model.hidden={R: 0}"],
        "model.equations=lotka_volterra needs 2 channels, got 3 (hare, lynx, R)",
    ),
    "a model of images": (
        ["model=odenet"],
        (
            "model: node_cli.models.odenet.OdeNet needs input_shape, num_outputs, which neither its YAML nor "
            "the dataset "
            "nor the task gives: take model=gru, hamiltonian, hybrid, known, linear_ar, neural_ode, "
            "ode_rnn, second_order or sindy, or another dataset"
        ),
    ),
    "images": (
        ["dataset=digits"],
        (
            "task: node_cli.tasks.trajectory.Trajectory needs units, channel_names, which neither its YAML nor "
            "the dataset "
            "gives: take task=classification or density, or another dataset"
        ),
    ),
    "classes of series that are split by time": (
        ["task=classification", "dataset=japanese_vowels", "dataset.split=time", "dataset.test=2", "dataset.val=2"],
        "dataset.split=time has every series, and so its label, in every split: set dataset.split=series",
    ),
    "classes of series": (
        ["task=classification", "dataset=lynx_hare"],
        "dataset: these series have no labels: take task=trajectory, set dataset.label of dataset=csv or npz, or",
    ),
}


@pytest.mark.parametrize(("words", "line"), MISTAKES.values(), ids=MISTAKES)
def test_one_line_status_2_nothing_written(typed, tmp_path: Path, words: list[str], line: str):
    for name, text in TABLES.items():
        if f"dataset.path={name}" in words:
            (tmp_path / name).write_text(text)
    before = set(tmp_path.iterdir())
    task = [] if words[0].startswith("task=") else ["task=trajectory"]
    result = typed("node-train", *task, "num_threads=1", "device=cpu", "trainer.epochs=1", *words)
    assert result.err.startswith(f"node-train: {line}")
    assert (result.err.count("\n"), result.status, result.out) == (1, 2, "")
    assert set(tmp_path.iterdir()) == before


def test_an_audit_takes_a_task_that_chooses_a_trainer_and_no_key_of_one(typed, tmp_path: Path):
    assert "reference" in typed("node-audit", "task=trajectory", "model=known", "--cfg", "job").out
    result = typed("node-audit", "task=trajectory", "trainer.epochs=3")
    assert (result.status, result.out) == (2, "")
    assert result.err == "node-audit: trainer has no effect on an audit: leave it out\n"
    assert not list(tmp_path.iterdir())

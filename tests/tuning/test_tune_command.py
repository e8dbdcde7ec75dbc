"""`node-tune` as a user runs it: worker processes, a kill, two commands at once, and what is left at the end."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import yaml
from small_studies import QUICK, start, summary, wait_for

from node_cli.training.stopping import Stopped
from node_cli.tuning.workers import signals_stop

pytestmark = pytest.mark.slow

STUDY = Path("outputs/studies/default")
WORDS = [*QUICK, "tune.trials=4", "tune.pruner=none"]


def test_a_study_killed_midway_goes_on_with_two_commands_and_two_workers(typed, tmp_path, monkeypatch):
    """Killed while its second trial trains; then two commands share what is left, one of them with two workers.

    The work of the other one, which has one, is done in this process, without the start of a third.
    """
    killed = start(tmp_path, *WORDS)
    wait_for(tmp_path / STUDY / "trials" / "1" / ".hydra" / "config.yaml", killed)
    killed.kill()  # its worker ends with it
    killed.communicate()
    done = summary(STUDY, 0)
    other = start(tmp_path, *WORDS, "tune.workers=2")
    monkeypatch.setattr("node_cli.tuning.workers.run_workers", lambda work, count, restarts: work())
    monkeypatch.setattr("node_cli.training.launched.end_with_parent", lambda: None)
    texts = [typed("node-tune", *WORDS).out, other.communicate()[0]]
    assert any("4 runs: 4 finished" in text for text in texts), texts
    assert sorted(path.name for path in (STUDY / "trials").iterdir()) == ["0", "1", "2", "3"]
    summaries = [summary(STUDY, number) for number in range(4)]
    assert summaries[0] == done
    assert [each["status"] for each in summaries] == ["finished"] * 4
    assert len({each["config"]["optimizer"]["lr"] for each in summaries}) == 4
    for name in ("history", "importance", "parallel"):
        assert (STUDY / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    trained = typed("node-train", "--config-dir", str(STUDY), "experiment=best", "logger=jsonl", "run_dir=best")
    assert trained.status == 0
    best = min(summaries, key=lambda each: each["metrics"]["val/error"])
    assert json.loads(Path("best/summary.json").read_text())["metrics"] == best["metrics"]


def test_ctrl_c_reaches_the_command_alone_which_has_the_step_of_a_trial_saved(tmp_path):
    command = start(tmp_path, *QUICK, "trainer.epochs=100000", "tune.trials=1")
    trial = tmp_path / STUDY / "trials" / "0"
    wait_for(trial / "metrics.jsonl", command)
    os.killpg(command.pid, signal.SIGINT)  # as a terminal does
    text = command.communicate()[1]
    assert command.returncode == 130
    assert "Traceback" not in text
    assert "SIGINT" not in text
    assert text.splitlines()[-3:-1] == ["SIGTERM: this step is finished and saved", saved(trial)]
    assert text.endswith("node-tune: interrupted\n")


def saved(trial):
    """What a worker says of the checkpoint that it has left."""
    step = max(int(path.stem.partition("-")[2]) for path in (trial / "checkpoints").glob("step-*.pt"))
    (line,) = (line for line in (trial / "run.log").read_text().splitlines() if f"after step {step} of" in line)
    return f"node-tune: {line.partition('INFO ')[2]}"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 75), (signal.SIGUSR2, 75)])
def test_the_end_of_a_job_ends_the_command(number, status):
    with pytest.raises(Stopped, match=f"stopped by {number.name}: the same command goes on") as stopped, signals_stop():
        os.kill(os.getpid(), number)
    assert stopped.value.status == status
    os.kill(os.getpid(), number)  # changes the status no more


def test_the_space_for_series_searches_what_matters_to_a_single_one(tmp_path):
    quick = ["num_threads=1", "device=cpu", "logger=jsonl", "trainer.max_steps=1", "tune.sampler=random"]
    strategies = "tune.space.task.strategy=[multiple_shooting,growing]"
    out, err = start(tmp_path, "task=trajectory", "tune=series", "tune.trials=3", strategies, *quick).communicate()
    assert "3 runs: 3 finished" in out, err
    configs = [summary(tmp_path / "outputs/studies/series", number)["config"] for number in range(3)]
    assert {each["task"]["strategy"] for each in configs} == {"growing", "multiple_shooting"}
    searched = ("optimizer.lr", "optimizer.weight_decay", "model.width", "solver.rtol")
    assert all(len({each[group][key] for each in configs}) > 1 for group, key in (k.split(".") for k in searched))
    assert len({each["trainer"]["batch_size"] for each in configs}) == 1


RATES = "who,t,x,rate\n" + "".join(f"{who},{t},{who * t % 7},{who + 0.5}\n" for who in range(10) for t in range(4))
SPIRALS = (
    "dataset.num_series=24 dataset.num_times=8 dataset.num_beyond=4 dataset.context=8 dataset.val=4 dataset.test=4"
)
TABLE = "dataset.path=rates.csv dataset.time=t dataset.series=who dataset.label=rate dataset.split=series"
VOWELS = "dataset=japanese_vowels tune.space.model.width=[2,4]"
ARRAYS = "dataset=npz dataset.path=rates.npz dataset.label=rate tune.space.model.width=[2,4]"
OF_SERIES = {  # what is typed, what trials are compared by, and what differs between them
    "latent": (f"task=latent {SPIRALS}", "val/nll", ["optimizer.lr", "task.kl_until"]),
    "labels": (f"task=classification model=cde {VOWELS}", "val/error", ["model.noise", "model.dropout"]),
    "labels of numbers": (f"task=regression model=gru {TABLE}", "val/loss", ["model.noise", "model.dropout"]),
    "labels of arrays": (f"task=regression model=gru {ARRAYS}", "val/loss", ["model.noise", "model.dropout"]),
}


@pytest.mark.parametrize("name", OF_SERIES)
def test_spaces_for_models_of_series_are_named_in_a_word(name, typed, tmp_path, monkeypatch):
    monkeypatch.setattr("node_cli.tuning.workers.run_workers", lambda work, count, restarts: work())
    monkeypatch.setattr("node_cli.training.launched.end_with_parent", lambda: None)
    words, metric, searched = OF_SERIES[name]
    (tmp_path / "rates.csv").write_text(RATES)
    times, rate = np.tile(np.arange(4.0), (10, 1)), np.arange(10) + 0.5
    np.savez(tmp_path / "rates.npz", times=times, values=np.sin(times * rate[:, None])[..., None], rate=rate)
    quick = ["num_threads=1", "device=cpu", "logger=none", "trainer.max_steps=1", "tune.sampler=random"]
    space = name.partition(" ")[0]
    result = typed("node-tune", f"tune={space}", *words.split(), "tune.trials=2", *quick)
    assert "2 runs: 2 finished" in result.out, result.err
    assert metric in result.out
    configs = [summary(tmp_path / "outputs/studies" / space, number)["config"] for number in range(2)]
    for group, key in (each.split(".") for each in searched):
        assert configs[0][group][key] != configs[1][group][key]
    best = yaml.safe_load((tmp_path / "outputs/studies" / space / "experiment/best.yaml").read_text())
    assert best.get("dataset", {}).get("path") == configs[0]["dataset"].get("path")

"""Table 1 of the paper by its one command, at the smallest size."""

import json
import statistics
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest
from forked import Command

from node_cli.cli.compose import CommandLine, hydra_ready
from node_cli.cli.overrides import parse, texts_of

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "table1.py"
SMALL = ["trainer.max_steps=1", "model.width=4", "num_threads=1", "logger=none"]
SMALL += ["dataset.val_fraction=0.02", "dataset.test_fraction=0.02"]
MODELS = ["mlp", "odenet_adjoint", "odenet_checkpoint", "resnet", "resnet1", "rknet", "stem_only"]


def test_the_grid_has_a_job_for_each_model_and_seed():
    line = CommandLine("train", parse(["experiment=glob(table1_*)", "seed=0,1"]))
    with hydra_ready(line):
        jobs = [texts_of(job.overrides) for job in line.jobs()]
    assert jobs == [[f"experiment=table1_{model}", f"seed={seed}"] for model in MODELS for seed in (0, 1)]


def forked(command: list[str], **keys: object) -> SimpleNamespace:
    """The same command at its end, without the seconds that its imports take."""
    module, *words = command[command.index("-m") + 1 :]
    process = Command(Path.cwd(), "node-" + module.rpartition(".")[2], *words)
    out, err = process.communicate()
    assert process.returncode == 0, err
    return SimpleNamespace(stdout=out, stderr=err, returncode=process.returncode)


def forked_in_lines(command: list[str], **keys: object) -> nullcontext[SimpleNamespace]:
    done = forked(command)
    done.stdout = (done.stderr + done.stdout).splitlines(keepends=True)
    return nullcontext(done)


def test_it_is_trained_and_what_is_finished_is_not_again(tmp_path: Path, monkeypatch, capsys):
    def run() -> list[str]:
        with pytest.raises(SystemExit) as end:
            run_path(str(SCRIPT), run_name="__main__")
        assert end.value.code == 0
        return capsys.readouterr().out.splitlines()

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(SCRIPT.parent))  # as of a script that is run
    words = [*SMALL, "experiment=table1_mlp,table1_odenet_adjoint", "seed=0,1"]
    monkeypatch.syspath_prepend(str(SCRIPT.parent))  # as Python does for a script
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words])
    monkeypatch.setattr(subprocess, "run", forked)
    monkeypatch.setattr(subprocess, "Popen", forked_in_lines)
    lines = run()
    assert [line.split(" done, ")[0] for line in lines[:4]] == ["0 of 4", "1 of 4", "2 of 4", "3 of 4"]
    (sweep,) = (tmp_path / "outputs" / "sweeps").iterdir()
    assert (sweep / "table1.md").read_text() == "".join(f"{line}\n" for line in lines if "|" in line)
    mlp, odenet = ([cell.strip() for cell in line.split("|")] for line in lines if line.startswith(("| mlp", "| ode")))
    assert mlp[5:7] == ["-", "-"]
    assert (mlp[-3:-1], odenet[-3:-1]) == (["1.60", "0.24 M"], ["0.42", "0.22 M"])
    summaries = [json.loads((sweep / str(job) / "summary.json").read_text()) for job in (2, 3)]
    errors = [100 * summary["metrics"]["test/error"] for summary in summaries]
    assert odenet[3] == f"{statistics.mean(errors):.2f} ± {statistics.stdev(errors):.2f}"
    nfe = statistics.mean(summary["nfe"]["nfe/forward"] for summary in summaries)
    assert odenet[5].startswith(f"{nfe:.1f} ± ")
    seconds = summaries[0]["seconds"]
    assert seconds["epoch"] == pytest.approx(27 * seconds["training"])  # 1,727 images by 64

    (sweep / "1" / "summary.json").unlink()
    lines = run()
    assert [line.endswith(", finished before") for line in lines[:2]] == [True, False]
    assert json.loads((sweep / "1" / "summary.json").read_text())["status"] == "finished"


def test_a_table_with_a_mistake_is_refused_in_a_line(tmp_path: Path):
    result = subprocess.run([sys.executable, str(SCRIPT), "seed=x"], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith("node-train: ")
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_glob_without_a_match_is_refused(typed, tmp_path: Path):
    result = typed("node-train", "-m", "experiment=glob(nothing*)", "seed=0,1")
    assert (result.status, result.err) == (2, "node-train: experiment=glob(nothing*) has no match\n")
    assert list(tmp_path.iterdir()) == []

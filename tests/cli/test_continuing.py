"""A run that is made longer, as typed: what is refused, and what the log says of the learning rate."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.slow

WORDS = ["model=mlp", "model.width=4", "trainer.epochs=2", "num_threads=1", "device=cpu", "logger=none"]


@pytest.fixture(scope="module")
def finished(typed_in, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    typed_in(folder, "node-train", *WORDS, "run_dir=mine")
    return folder / "mine"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["trainer.epochs=1"], "trainer.epochs=1 is too few: 2 epochs are done"),
        (["trainer.max_steps=7"], "trainer.max_steps=7 is too few: 40 steps are done"),
        (["trainer.epochs=3", "optimizer.lr=1e-3"], "optimizer.lr: 0.02 -> 0.001: say how the learning rate goes on"),
        (["optimizer.lr=1e-3"], "optimizer.lr: 0.02 -> 0.001: say how the learning rate goes on, scheduler.on_resume="),
        (["scheduler.on_resume=jump"], "scheduler.on_resume must be one of continue, stretch, restart, constant, got"),
        (["scheduler=constant", "trainer.epochs=3"], "was trained with other settings (scheduler"),
        (["trainer.epochs=3", "optimizer.weight_decay=1"], "was trained with other settings (optimizer.weight_decay:"),
    ],
)
def test_refusals_leave_the_run_as_it_is(typed, finished: Path, words: list[str], line: str):
    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}

    before = contents()
    result = typed("node-train", f"resume={finished}", *words)
    assert result.err.replace(f"{finished} ", "").startswith(f"node-train: {line}")
    assert (result.err.count("\n"), result.status, result.out) == (1, 2, "")
    assert contents() == before


@pytest.mark.parametrize("override", ["--config-path=mine", "a b", "-m", "~/x=1", "seed={", "ä=1"])
def test_a_recorded_override_that_hydra_cannot_read_is_named(typed, finished: Path, tmp_path: Path, override: str):
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    (run / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump([override]))
    result = typed("node-train", "resume=run")
    assert (result.err.count("\n"), result.status, result.out) == (1, 2, "")
    assert override in result.err


def test_the_log_tells_rate_and_loss_before_and_after(typed, tmp_path: Path):
    begun = typed("node-train", *WORDS, "run_dir=mine").out
    losses = re.search(r"epoch 2/2  train/loss (\S+)  .* val/loss (\S+)", begun).groups()
    words = ["trainer.epochs=3", "scheduler.on_resume=restart", "optimizer.lr=1e-3"]
    longer = typed("node-train", "resume=mine", *words)
    assert (longer.status, longer.err) == (0, "")
    said = (
        f"the last epoch had train/loss {losses[0]}, val/loss {losses[1]}; learning rate 6.49e-05 before, "
        "4e-05 from here on, rising to 0.001 (scheduler.on_resume=restart)\nepoch 3/3  train/loss "
    )
    assert said in longer.out
    assert re.search(r"epoch 3/3 .*  lr 0\.0005\d+", longer.out)
    again = typed("node-train", "resume=mine")  # what was said for that continuation has no effect on this one
    assert again.out == "mine is finished already; for more, set trainer.epochs or trainer.max_steps\n"
    more = typed("node-train", "resume=mine", "trainer.epochs=4", "trainer.max_steps=61").out
    assert "(scheduler.on_resume=continue); its schedule has ended, for another one" in more

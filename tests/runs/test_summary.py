"""What a finished run amounts to: `summary.json`, and the table at its end."""

from __future__ import annotations

import time
from pathlib import Path

from parts import make_part
from training.small_runs import Recorder, build_ode_net, build_trainer

from node_cli.runs.folder import Request
from node_cli.runs.summary import final_table, summarize

REQUEST = Request({"seed": 0}, [], {})


def finished(kind: str, *parts):
    recorder, trainer = Recorder(), build_trainer(build_ode_net(kind, *parts), epochs=2)
    return summarize(REQUEST, trainer, trainer.fit(recorder, None), time.time()), recorder


def test_all_that_is_recorded_of_the_test_stands_in_the_summary():
    summary, recorder = finished("odenet_mlp", make_part("solver", "rk4", num_steps=3), make_part("gradient", "direct"))
    assert summary["nfe"] == {"nfe/forward": 12, "nfe/backward": 0, "nfe/val": 12, "nfe/test": 12}
    of_test = {tag: value for _, tag, value in recorder.scalars if tag.endswith("/test") or tag.startswith("test/")}
    assert of_test == {tag: (summary["metrics"] | summary["nfe"])[tag] for tag in of_test}
    assert set(of_test) == {"nfe/test", "test/loss", "test/accuracy", "test/error"}


SUMMARY = {
    "objective": {"metric": "error", "goal": "min"},
    "metrics": {
        "val/loss": 1.5e-7,
        "val/accuracy": 0.975,
        "val/error": 0.025,
        "val/failed": 0,
        "test/loss": 12.3456,
        "test/accuracy": 0.96,
        "test/error": 0.04,
        "test/failed": 2,
    },
    "nfe": {"nfe/forward": 25.04, "nfe/backward": 24, "nfe/test": 26},
    "failures": {"skipped": 0, "fallbacks": 3},
    "parameters": 142538,
    "epochs": 8,
    "best_epoch": 7,
    "steps": 160,
    "seconds": {"training": 17.2, "last_session": 19.5},
    "memory": {"peak_mb": 481.4},
}


def test_the_final_table_has_one_system_of_units():
    assert final_table(SUMMARY, Path("outputs/mine"), {"alpha": "0.5 (0.4 to 0.6)"}) == [
        *("", "  test error     0.04000", "  test loss      12.35", "  test accuracy  0.9600"),
        *(
            "  test failed    2 samples",
            "  val loss       1.500e-07",
            "  val accuracy   0.9750",
            "  val error      0.02500",
        ),
        "  alpha          0.5 (0.4 to 0.6)",
        *("  parameters     142,538", "  fallbacks      3 of 160 batches"),
        "  NFE            25.0 forward, 24.0 backward (last epoch); 26.0 test",
        *("  best epoch     7 of 8", "  seconds        19.5 (17.2 in updates)", "  memory         481 MB at most"),
        "  run folder     outputs/mine",
    ]

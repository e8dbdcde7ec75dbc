"""`node-audit` as a user types it: what it prints, what it leaves, what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

pytestmark = pytest.mark.slow

SMALL = ["num_threads=1", "device=cpu", "problem.batch_size=2", "problem.reference_rtol=1e-4", "rtols=[1e-1,1e-2]"]
IMAGES = ["model.width=4"]
POINTS = ["dataset=moons", "model=odenet_mlp", "model.width=8"]
PNG = b"\x89PNG\r\n\x1a\n"
TESTS = Path(__file__).parents[1]


def verdict_of(out: str) -> str:
    """The last paragraph but the folder."""
    return out.strip().split("\n\n")[-2]


@pytest.fixture
def planted(tmp_path: Path) -> list[str]:
    """Gradient methods of a user's own, each with a mistake, beside the project's."""
    shutil.copy(TESTS / "audit" / "planted.py", tmp_path)
    (tmp_path / "mine" / "gradient").mkdir(parents=True)
    for name in ("WrongSign", "ForgottenParameter", "DroppedTimes", "OnlyLastJump", "Negated"):
        (tmp_path / "mine" / "gradient" / f"{name}.yaml").write_text(f"_target_: planted.{name}\n")
    return ["--config-dir", "mine", "packages=[planted]"]


@pytest.fixture
def trained(typed, tmp_path: Path) -> Path:
    """A run of one short epoch by tsit5 and adjoint with settings of their own."""
    words = ["solver=tsit5", "solver.rtol=3e-3", "gradient=adjoint", "gradient.rtol=1e-4"]
    result = typed("node-train", *POINTS, *words, "trainer.max_steps=3", "num_threads=1", "run_dir=mine")
    assert result.status == 0
    return tmp_path / "mine"


def test_a_model_leaves_tables_json_a_picture_and_events(typed, tmp_path: Path):
    result = typed("node-audit", *IMAGES, *SMALL, "run_dir=here")
    assert result.status == 0
    names = ["reference 0.001", "reference 0.0001"]
    names += [f"dopri5 {gradient} {rtol}" for gradient in ("direct", "checkpoint", "adjoint") for rtol in (0.1, 0.01)]
    assert result.err.splitlines() == [f"measurement {n} of 8: {name}" for n, name in enumerate(names, 1)]
    figures = json.loads((tmp_path / "here" / "audit.json").read_text())
    assert verdict_of(result.out) == figures["verdict"]
    assert result.out.endswith("\nhere\n")
    names = [(case["gradient"], case["rtol"]) for case in figures["cases"]]
    assert names == [(gradient, rtol) for gradient in ("direct", "checkpoint", "adjoint") for rtol in (1e-1, 1e-2)]
    for case in figures["cases"]:
        assert set(case["parts"]) == {"blocks.0", "the rest"}
        assert set(case["times"]) == {"blocks.0.t0", "blocks.0.t1"}
        assert (case["nfe_backward"] > 0) == (case["gradient"] != "direct")
        assert case["seconds"] > 0
        assert case["peak_bytes"] > 0
        assert len(case["reconstruction"]["blocks.0"]) == 9
        exact = case["gradient"] != "adjoint"
        assert (case["against_pass"]["relative_error"] < 1e-3) == exact
        assert case["against_ode"]["relative_error"] > 0.01
    assert (tmp_path / "here" / "model.png").read_bytes().startswith(PNG)
    assert sorted(path.name.split(".")[0] for path in (tmp_path / "here").iterdir()) == ["audit", "events", "model"]
    events = EventAccumulator(str(tmp_path / "here")).Reload()
    assert events.Tags()["images"] == ["audit/model"]
    (text,) = events.Tensors("audit/text_summary")
    assert figures["verdict"] in text.tensor_proto.string_val[0].decode()


def test_a_trained_run_with_its_own_solver_gradient_and_tolerance(typed, trained: Path):
    weights = (trained / "checkpoints" / "best.pt").read_bytes()
    result = typed("node-audit", "run=mine", *SMALL[:-2], "problem.reference_rtol=1e-6", "gradients=[adjoint]")
    assert result.status == 0
    (folder,) = (trained / "audits").iterdir()
    figures = json.loads((folder / "audit.json").read_text())
    assert {(case["solver"], case["rtol"]) for case in figures["cases"]} == {
        ("tsit5", rtol) for rtol in (1e-2, 3e-3, 1e-3, 1e-5)
    }
    assert (figures["config"]["model"]["width"], figures["config"]["gradients"]["adjoint"]["rtol"]) == (8, 1e-4)
    assert (trained / "checkpoints" / "best.pt").read_bytes() == weights
    result = typed("node-audit", "run=mine/checkpoints/last.pt", "solver=rk4", "gradients=[direct]", *SMALL[:-1])
    assert result.status == 0
    assert "rk4     direct    -" in result.out


def test_a_run_brings_its_own_parts(typed, trained: Path):
    result = typed("node-audit", "run=mine", "model.width=3", "seed=1", "solver.max_nfe=5")
    assert (result.status, result.err.splitlines()) == (
        2,
        [
            "node-audit: seed has no effect with run=..., which brings its own",
            "node-audit: model has no effect with run=..., which brings its own",
            "node-audit: solver: with run=..., choose one too (solver=dopri5), or leave it out for the run's own",
        ],
    )
    (trained / "checkpoints" / "best.pt").unlink()
    result = typed("node-audit", "run=mine")
    assert (result.status, result.err) == (2, "node-audit: no checkpoint at mine/checkpoints/best.pt\n")
    assert not (trained / "audits").exists()


def test_torchdiffeq_stands_in_the_same_table(typed):
    result = typed("node-audit", *POINTS, *SMALL, "beside=[torchdiffeq]")
    assert result.status == 0
    for row in ("torchdiffeq  direct      0.01", "torchdiffeq  adjoint     0.01", "dopri5       checkpoint  0.01"):
        assert row in result.out
    assert "left out: torchdiffeq checkpoint: gradient=checkpoint runs steps again" in result.out


def test_options_of_one_gradient(typed, tmp_path: Path):
    """A tight backward solve brings the adjoint nearer to the gradient of the pass."""
    words = [*POINTS, *SMALL[:-1], "rtols=[1e-2]", "gradients=[adjoint]"]
    for name, options in {
        "loose": [],
        "tight": ["gradient=adjoint", "gradient.rtol=1e-8", "gradient.atol=1e-8"],
    }.items():
        assert typed("node-audit", *words, *options, f"run_dir={name}").status == 0
    loose, tight = (json.loads((tmp_path / name / "audit.json").read_text()) for name in ("loose", "tight"))
    assert tight["cases"][0]["nfe_backward"] > 2 * loose["cases"][0]["nfe_backward"]
    assert tight["config"]["gradients"]["adjoint"]["rtol"] == 1e-8


MISTAKES_ON_A_MODEL = {
    "WrongSign": "it solves da/dt = +a df/dy, the adjoint's ODE with the wrong sign",
    "ForgottenParameter": "blocks.0.vector_field.norm1.weight gets no gradient",
    "DroppedTimes": "blocks.0.t0 and blocks.0.t1 get no gradient",
    "Negated": "blocks.0: its sign is wrong throughout",
}


def test_mistakes_in_gradients_of_ones_own_are_named_on_a_model(typed, planted):
    names = ",".join(MISTAKES_ON_A_MODEL)
    words = [f"gradients=[direct,{names}]", "rtols=[1e-4]", "problem.reference_rtol=1e-5", *IMAGES, *SMALL[:3]]
    result = typed("node-audit", *planted, *words)
    verdict = verdict_of(result.out)
    assert "dopri5 direct 0.0001" in verdict
    for name, clause in MISTAKES_ON_A_MODEL.items():
        assert f"dopri5 {name} is not exact: {clause}" in verdict


def test_mistakes_in_gradients_of_ones_own_are_named_in_closed_form(typed, planted):
    words = ["problem=linear", "gradients=[adjoint,OnlyLastJump]", "rtols=[1e-6]", "problem.euler_steps=[1,2,4,8]"]
    verdict = verdict_of(typed("node-audit", *planted, *words).out)
    assert verdict.startswith("dopri5 adjoint agrees with the closed form")
    assert "dopri5 OnlyLastJump does not: the jumps are missing" in verdict


def test_a_solve_that_fails_has_a_row(typed):
    result = typed("node-audit", *IMAGES, *SMALL, "problem.batch_size=8", "solver.max_nfe=24", "gradients=[direct]")
    assert result.status == 0
    assert "dopri5  direct    0.01  failed        failed" in result.out
    assert "\ndopri5 direct 0.01: the ODE solve failed at t" in result.out
    assert "; at 0.01 its solve fails" in verdict_of(result.out)


def test_a_sweep_of_audits(typed, tmp_path: Path):
    words = ["-m", "problem=scalar", "problem.alpha=-1,0.5", "gradients=[adjoint]", "rtols=[1e-6]"]
    assert typed("node-audit", *words).status == 0
    found = sorted((tmp_path / "outputs" / "sweeps").rglob("audit.json"))
    assert [json.loads(path.read_text())["config"]["problem"]["alpha"] for path in found] == [-1, 0.5]


def test_a_folder_in_use_stays_as_it_is(typed, tmp_path: Path):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "notes.txt").write_text("mine")
    result = typed("node-audit", "problem=scalar", "run_dir=used")
    assert (result.status, result.err) == (2, "node-audit: run_dir=used is not empty: set a folder of its own\n")
    assert [path.name for path in (tmp_path / "used").iterdir()] == ["notes.txt"]


MISTAKES = {
    "no such problem": (
        ["problem=scala"],
        "problem=scala does not exist: did you mean scalar? there are linear, model,",
    ),
    "no such gradient": (["gradients=[direct,nope]"], "gradient=nope does not exist: there are adjoint, checkpoint,"),
    "no such solver": (["beside=[nope]"], "solver=nope does not exist: there are adaptive_heun,"),
    "no list": (["gradients=direct"], "gradients must be a list of different names, such as [direct,adjoint], got 'd"),
    "no gradients": (["gradients=[]"], "gradients must be a list of different names"),
    "a gradient twice": (["gradients=[direct,direct]"], "gradients must be a list of different names"),
    "no tolerances": (["rtols=[]"], "rtols must be different positive numbers, such as [1e-3,1e-5], got []"),
    "negative tolerance": (["rtols=[-1]"], "rtols must be different positive numbers"),
    "text tolerance": (["rtols=[a]"], "rtols must be different positive numbers"),
    "solver twice": (["beside=[dopri5]"], "beside=[dopri5] names the solver itself: leave it out"),
    "options of a gradient left out": (
        ["gradient=adjoint", "gradients=[direct]"],
        "gradient=adjoint is not among gradients=[direct]: add it",
    ),
    "gradient that the solver does not offer": (
        ["solver=torchdiffeq", "gradients=[checkpoint]"],
        "gradient=checkpoint runs steps again, and a solve by Torchdiffeq does not record any",
    ),
    "one of two that the solver does not offer": (
        ["solver=scipy", "gradients=[direct,adjoint]"],
        "gradient=direct cannot differentiate a solve by Scipy",
    ),
    "tolerance beside tolerances": (["solver.rtol=1e-4"], "solver.rtol has no effect: rtols=[...] says at which"),
    "tolerances of a fixed step": (["solver=rk4", "rtols=[1e-3]"], "rtols has no effect on solver=rk4, which has no"),
    "reference too loose": (
        ["rtols=[1e-7]"],
        "problem.reference_rtol must be at most a tenth of the smallest of rtols",
    ),
    "no run": (["run=nowhere"], "no run at nowhere: nowhere/.hydra/config.yaml does not exist"),
    "checkpoint of no run": (["checkpoint=last"], "checkpoint has no effect without run=..."),
    "no ODE": (["model=resnet"], "problem=model needs an ODE block, which ResNet has not: take model=odenet, or"),
    "model for a closed form": (
        ["problem=scalar", "model=resnet", "device=cpu"],
        "model, device: no effect on this problem; leave it out, or take problem=model",
    ),
    "key of another problem": (
        ["problem=scalar", "problem.batch_size=3"],
        "unknown key problem.batch_size: ",
    ),
    "empty batch": (["problem.batch_size=0"], "problem.batch_size must be at least 1, got 0"),
    "one time": (["problem.num_times=1"], "problem.num_times must be at least 2, got 1"),
    "accepts all": (["problem.accepted_error=1"], "problem.accepted_error must be between 0 and 1, got 1"),
    "precision": (["precision=half"], "precision must be one of float32, float64, bfloat16, got 'half'"),
    "run_dir": (["run_dir=''"], "run_dir must be a folder, of printable names up to 255 bytes, got ''"),
}


@pytest.mark.parametrize(("words", "line"), MISTAKES.values(), ids=MISTAKES)
def test_one_line_status_2_and_nothing_left(typed, tmp_path: Path, words: list[str], line: str):
    result = typed("node-audit", *words)
    assert result.err.startswith(f"node-audit: {line}")
    assert result.err.count("\n") == 1
    assert (result.status, result.out) == (2, "")
    assert list(tmp_path.iterdir()) == []

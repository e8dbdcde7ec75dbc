"""A sweep over different models in TensorBoard's HParams tab, asked of its own server with both of its readers."""

import json

import pytest
from test_tensorboard import Server, eventually

pytestmark = pytest.mark.slow

SMALL = ["model.width=4", "trainer.max_steps=2", "trainer.batch_size=8", "num_threads=1", "device=cpu"]
SMALL += ["trainer.histograms_every_epochs=0", "trainer.clip_norm=null,1"]
SWEPT = [f"model={model},trainer.clip_norm={norm}" for model in ("mlp", "odenet") for norm in ("null", "1")]
RUNS = {f"outputs/sweeps/mixed/{number}/{swept}" for number, swept in enumerate(SWEPT)}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory, typed_in):
    folder = tmp_path_factory.mktemp("sweep")
    typed_in(folder, "node-train", "-m", "model=mlp,odenet", *SMALL, "sweep.name=mixed")
    return folder


@pytest.fixture(scope="module", params=["auto", "false"])
def server(request, sweep):
    server = Server(sweep, request.param)
    try:
        server.wait()
        eventually(lambda: set(tags(server)) == RUNS and all("test/loss" in found for found in tags(server).values()))
        yield server
    finally:
        server.stop()


def tags(server):
    return server.ask("plugin/scalars/tags")


def infos(server):
    return server.post("plugin/hparams/experiment", {"includeMetrics": True})


def groups(server, **order):
    """The rows, as the tab asks for them: every column, sorted by one."""
    known = infos(server)
    columns = [{"hparam": info["name"]} for info in known["hparamInfos"]]
    columns += [{"metric": info["name"]} for info in known["metricInfos"]]
    columns = [column | ({"order": "ORDER_ASC"} if column == order else {}) for column in columns]
    statuses = [f"STATUS_{name}" for name in ("UNKNOWN", "SUCCESS", "FAILURE", "RUNNING")]
    question = {"allowedStatuses": statuses, "colParams": columns, "startIndex": 0, "sliceSize": 100}
    return server.post("plugin/hparams/session_groups", question)["sessionGroups"]


def test_every_run_is_there_once(server):
    assert set(server.ask("runs")) == RUNS
    rows = groups(server)
    assert sorted(row["name"] for row in rows) == sorted(RUNS)
    assert [session["status"] for row in rows for session in row["sessions"]] == ["STATUS_SUCCESS"] * 4


def test_the_columns_are_those_of_all_models(server):
    known = {info["name"]: info for info in infos(server)["hparamInfos"]}
    assert set(known) >= {"model", "model.width", "model.num_blocks", "solver.rtol", "trainer.clip_norm", "seed"}
    different = [name for name, info in known.items() if info["differs"]]
    assert different == list(known)[: len(different)] == ["model"]
    for row in groups(server):
        is_odenet = row["hparams"]["model"] == "OdeNet"
        assert row["hparams"]["model.width"] == 4
        assert ("model.num_blocks" in row["hparams"]) == is_odenet


def test_every_run_has_its_final_metrics(server, sweep):
    for row in groups(server):
        shown = {metric["name"]["tag"]: metric["value"] for metric in row["metricValues"]}
        summary = json.loads(((sweep / row["name"]).parent / "summary.json").read_text())
        assert {tag: shown[tag] for tag in summary["metrics"]} == pytest.approx(summary["metrics"])
        assert ("nfe/forward" in shown) == (row["hparams"]["model"] == "OdeNet")


def test_a_column_that_some_runs_lack_can_be_sorted_by(server):
    clip_norms = [row["hparams"].get("trainer.clip_norm") for row in groups(server, hparam="trainer.clip_norm")]
    assert sorted(clip_norms, key=str) == [1, 1, None, None]
    assert clip_norms in ([1, 1, None, None], [None, None, 1, 1])

"""TensorBoard's own server is asked for what the logger wrote, with both of its readers."""

import io
import itertools
import json
import math
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import matplotlib.image
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

from node_cli.loggers.base import Resume
from node_cli.loggers.tensorboard import LAYOUT, TensorBoardLogger

pytestmark = pytest.mark.slow

HPARAMS = {
    "seed": 3,
    "resume": None,
    "model": {"width": 64, "learn_times": False, "solver": {"rtol": 1e-3, "method": "dopri5"}},
    "trainer": {"milestones": [60, 100], "clip_norm": math.inf},
}
METRICS = ["loss", "error"]
PICTURE = np.zeros((6, 9, 3), dtype=np.uint8)
PICTURE[:, 3:] = (10, 200, 30)


@pytest.mark.parametrize(
    ("names", "charts"),
    [
        (["loss", "accuracy", "error"], [["loss"], ["accuracy"], ["error"]]),
        (
            ["loss", "one_step_rmse", "rmse", "persistence_rmse"],
            [["loss"], ["rmse", "one_step_rmse", "persistence_rmse"]],
        ),
        (
            ["rmse", "persistence_rmse", "log_rmse", "persistence_log_rmse"],
            [["rmse", "persistence_rmse"], ["log_rmse", "persistence_log_rmse"]],
        ),
    ],
)
def test_a_metric_and_the_same_of_other_forecasts_are_in_one_chart(tmp_path, names, charts):
    logger = TensorBoardLogger(tmp_path, None, flush_secs=600, run_name=None)
    logger.log_metric_names(names)
    logger.close()
    (event,) = EventAccumulator(str(tmp_path)).Reload().Tensors("custom_scalars__config__")
    learning = {
        chart.title: list(chart.multiline.tag)
        for category in Layout.FromString(event.tensor_proto.string_val[0]).category
        if category.title == "Learning"
        for chart in category.chart
    }
    assert learning == {
        **{each[0]: [f"{part}/{name}$" for part in ("train", "val", "test") for name in each] for each in charts},
        "learning rate": ["lr$"],
    }


def log(logger, steps, value=1.0):
    for step in steps:
        logger.log_scalars(step, {"train/loss": value / (step + 1), "lr": 0.1})


def start(folder, resume_step=None):
    """A logger as a run starts it."""
    folder.mkdir(exist_ok=True)
    resume = None if resume_step is None else Resume(resume_step, 0)
    logger = TensorBoardLogger(folder, resume, flush_secs=600, run_name=None)
    logger.log_text("config", f"resume_step: {resume_step}\nmodel:\n  width: 64")
    logger.log_metric_names(METRICS)
    logger.log_hparams(HPARAMS)
    return logger


def write_whole_run(folder):
    logger = start(folder)
    for step in range(1, 4):
        logger.log_scalars(step, {"train/loss": 1 / step, "val/accuracy": step / 4})
        logger.log_histogram(step, "weights/stem", torch.linspace(-1, 1, 101, requires_grad=True) * step)
    logger.log_histogram(4, "gone", torch.full((3,), math.nan))
    logger.log_image(3, "wrong predictions", PICTURE)
    logger.log_scalars(3, {"test/accuracy": 0.75, "not finite": math.nan})
    logger.finish()
    logger.close()


def write_killed_and_resumed_run(folder):
    """Killed at step 20, twice; resumed from the checkpoint at step 10 both times, and finished at step 25."""
    for resume_step, last_step in [(None, 20), (10, 17)]:
        logger = start(folder, resume_step)
        log(logger, range(0 if resume_step is None else resume_step + 1, last_step + 1), value=-1.0)
        logger.log_image(last_step, "wrong predictions", PICTURE)
        logger.close()
        leave_as_killed(folder)
    logger = start(folder, 10)
    log(logger, range(11, 26))
    logger.log_image(25, "wrong predictions", PICTURE)
    logger.finish()
    logger.close()


def write_run_killed_before_its_first_checkpoint(folder):
    logger = start(folder)
    log(logger, range(5), value=-1.0)
    logger.close()
    leave_as_killed(folder)
    logger = start(folder)
    log(logger, range(3))
    logger.finish()
    logger.close()


def write_failed_run(folder):
    logger = start(folder)
    log(logger, range(3))
    logger.close()


def leave_as_killed(folder):
    """Leave the event files as a process killed a minute ago leaves them, in the middle of a record."""
    for path in sorted(folder.glob("events.out.tfevents.*")):
        seconds = path.name.split(".")[3]
        path.rename(path.with_name(path.name.replace(seconds, str(int(seconds) - 60), 1)))
    with max(folder.glob("events.out.tfevents.*")).open("ab") as file:
        file.write(b"\x18\0\0\0\0\0\0\0\xa3\x7f")


RUNS = {
    "whole": write_whole_run,
    "killed": write_killed_and_resumed_run,
    "restarted": write_run_killed_before_its_first_checkpoint,
    "failed": write_failed_run,
}


class Server:
    """A TensorBoard server over a folder, on loopback."""

    def __init__(self, folder, load_fast):
        command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), f"--load_fast={load_fast}"]
        command += ["--reload_interval=1", "--host=127.0.0.1", "--port=0"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def wait(self):
        """Wait until it listens, and read where."""
        address = next(line for line in self.process.stderr if "http://127.0.0.1:" in line)
        self.address = address[address.index("http://") :].split()[0].rstrip("/")

    def get(self, route, **query):
        with urllib.request.urlopen(
            f"{self.address}/data/{route}?{urllib.parse.urlencode(query)}", timeout=600
        ) as answer:
            return answer.read()

    def ask(self, route, **query):
        return json.loads(self.get(route, **query))

    def post(self, route, body):
        request = urllib.request.Request(f"{self.address}/data/{route}", json.dumps(body).encode())
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=600) as answer:
            return json.loads(answer.read())

    def scalars(self, run, tag):
        return [(step, value) for _, step, value in self.ask("plugin/scalars/scalars", run=run, tag=tag)]

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=600)
        self.process.stderr.close()


def all_is_read(server):
    """Whether the last thing that each run wrote has arrived."""
    tags = server.ask("plugin/scalars/tags")
    if set(tags) != set(RUNS) or "test/accuracy" not in tags["whole"] or "lr" not in tags["restarted"]:
        return False
    ends = {("killed", 25), ("restarted", 2)}
    return all(server.scalars(run, "train/loss")[-1] == (step, pytest.approx(1 / (step + 1))) for run, step in ends)


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outputs")
    for name, write in RUNS.items():
        write(folder / name)
    both = {load_fast: Server(folder, load_fast) for load_fast in ("auto", "false")}
    yield both
    for server in both.values():
        server.stop()


@pytest.fixture(params=["auto", "false"])
def server(request, servers):
    server = servers[request.param]
    if "address" not in vars(server):
        server.wait()
        eventually(lambda: all_is_read(server))
    return server


def eventually(is_so):
    give_up = time.monotonic() + 600
    while not is_so():
        assert time.monotonic() < give_up, "it never came"
        time.sleep(0.1)


def test_an_impossible_flush_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"logger\.tensorboard\.flush_secs: got 0, must be at least 1 \(second\)"):
        TensorBoardLogger(tmp_path, None, flush_secs=0, run_name=None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", ".hidden", "x" * 201, "a b"])
def test_a_name_that_no_folder_can_have_is_refused(name, tmp_path):
    with pytest.raises(ValueError, match=r"logger\.tensorboard\.run_name: got '.*', must be one name of letters"):
        TensorBoardLogger(tmp_path, None, flush_secs=10, run_name=name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("first", "then"), [("seed=0", None), ("seed=0", "seed=0"), ("seed=0", "other"), (None, "seed=0")]
)
def test_a_resumed_run_keeps_its_name(first, then, tmp_path):
    for resume, name in ((None, first), (Resume(3, 0), then)):
        logger = TensorBoardLogger(tmp_path, resume, flush_secs=10, run_name=name)
        log(logger, range(6))
        logger.close()
    folder = tmp_path / first if first else tmp_path
    assert len(list(tmp_path.rglob("events.*"))) == len(list(folder.glob("events.*"))) == 2


def test_a_run_is_one_run(server):
    assert sorted(server.ask("runs")) == sorted(RUNS)


def test_scalars_are_served(server):
    assert server.scalars("whole", "train/loss") == [(step, pytest.approx(1 / step)) for step in (1, 2, 3)]
    assert server.scalars("whole", "val/accuracy") == [(1, 0.25), (2, 0.5), (3, 0.75)]
    assert server.scalars("whole", "not finite") == [(3, "NaN")]


def test_a_killed_and_resumed_run_is_one_line(server):
    expected = [(step, pytest.approx((-1 if step <= 10 else 1) / (step + 1))) for step in range(26)]
    assert server.scalars("killed", "train/loss") == expected


def test_a_restarted_run_shows_nothing_of_the_first_try(server):
    assert server.scalars("restarted", "train/loss") == [(step, pytest.approx(1 / (step + 1))) for step in range(3)]


@pytest.mark.parametrize("load_fast", ["auto", "false"])
def test_a_server_that_looks_on_follows_a_resumed_run(load_fast, tmp_path):
    def steps():
        return [step for step, _ in server.scalars("run", "lr")] if server.ask("plugin/scalars/tags") else []

    logger = start(tmp_path / "run")
    log(logger, range(6))
    logger.close()
    leave_as_killed(tmp_path / "run")
    server = Server(tmp_path, load_fast)
    try:
        server.wait()
        eventually(lambda: steps() == [0, 1, 2, 3, 4, 5])
        resumed = start(tmp_path / "run", 2)
        resumed.log_scalars(3, {"lr": 0.1})
        resumed.flush()
        eventually(lambda: steps() == [0, 1, 2, 3])
        resumed.close()
    finally:
        server.stop()


def test_histograms_are_served(server):
    tags = server.ask("plugin/histograms/tags")["whole"]
    assert list(tags) == ["weights/stem"]  # what is all NaN is not there
    events = server.ask("plugin/histograms/histograms", run="whole", tag="weights/stem")
    assert [step for _, step, _ in events] == [1, 2, 3]
    for _, step, buckets in events:
        values = (torch.linspace(-1, 1, 101) * step).tolist()
        lefts, rights, counts = zip(*buckets, strict=True)
        assert (lefts[0], rights[-1]) == (-step, step)
        assert lefts[1:] == rights[:-1]
        limits = [*lefts, math.inf]
        assert list(counts) == [sum(a <= value < b for value in values) for a, b in itertools.pairwise(limits)]
        assert 0 in counts
        assert (0, 0) not in itertools.pairwise(counts)  # empty ones in a row are one


def test_images_are_served(server):
    [image] = server.ask("plugin/images/images", run="whole", tag="wrong predictions", sample=0)
    assert image["step"] == 3
    png = server.get("plugin/images/individualImage", **dict(urllib.parse.parse_qsl(image["query"])))
    pixels = matplotlib.image.imread(io.BytesIO(png), format="png")
    assert (np.round(pixels[..., :3] * 255) == PICTURE).all()


def test_images_after_the_checkpoint_are_taken_back(server):
    images = server.ask("plugin/images/images", run="killed", tag="wrong predictions", sample=0)
    assert [image["step"] for image in images] == [25]


def test_text_is_served_as_it_stands(server):
    [text] = server.ask("plugin/text/text", run="whole", tag="config/text_summary")
    assert text["step"] == 0
    assert "<pre><code>resume_step: None\nmodel:\n  width: 64\n</code></pre>" in text["text"]


def test_a_resumed_run_shows_both_of_its_configs(server):
    texts = server.ask("plugin/text/text", run="killed", tag="config/text_summary")
    assert [text["step"] for text in texts] == [0, 11]
    assert "resume_step: 10" in texts[1]["text"]


def test_the_layout_groups_the_curves(server):
    layout = server.ask("plugin/custom_scalars/layout")
    charts = {
        category["title"]: {chart["title"]: ["Multiline", chart["multiline"]["tag"]] for chart in category["chart"]}
        for category in layout["category"]
    }
    learning = {name: ["Multiline", [f"{part}/{name}$" for part in ("train", "val", "test")]] for name in METRICS}
    assert charts == {"Learning": learning | {"learning rate": ["Multiline", ["lr$"]]}} | LAYOUT


def test_the_layout_finds_the_curves_of_a_run(server):
    loss = server.ask("plugin/custom_scalars/scalars", run="whole", tag="train/loss$")
    assert loss["regex_valid"]
    assert list(loss["tag_to_events"]) == ["train/loss"]


def test_hparams_and_metrics_are_columns(server):
    answer = server.post("plugin/hparams/experiment", {"includeMetrics": True})
    types = {info["name"]: info["type"] for info in answer["hparamInfos"]}
    assert types == {
        "seed": "DATA_TYPE_FLOAT64",
        "model.width": "DATA_TYPE_FLOAT64",
        "model.learn_times": "DATA_TYPE_STRING",
        "model.solver.rtol": "DATA_TYPE_FLOAT64",
        "model.solver.method": "DATA_TYPE_STRING",
        "trainer.milestones": "DATA_TYPE_STRING",
        "trainer.clip_norm": "DATA_TYPE_STRING",
    }
    scalars = {tag for tags in server.ask("plugin/scalars/tags").values() for tag in tags}
    assert {info["name"]["tag"] for info in answer["metricInfos"]} == scalars > {"val/accuracy", "test/accuracy"}


def test_hparams_stand_beside_the_final_metrics_of_the_same_run(server):
    columns = [{"metric": {"tag": tag, "group": ""}} for tag in ("val/accuracy", "test/accuracy")]
    question = {"allowedStatuses": ["STATUS_SUCCESS"], "colParams": columns, "startIndex": 0, "sliceSize": 100}
    answer = server.post("plugin/hparams/session_groups", question)
    assert sorted(group["name"] for group in answer["sessionGroups"]) == sorted(set(RUNS) - {"failed"})
    [group] = [group for group in answer["sessionGroups"] if group["name"] == "whole"]
    assert group["hparams"] == {
        "seed": 3.0,
        "model.width": 64.0,
        "model.learn_times": "false",
        "model.solver.rtol": 0.001,
        "model.solver.method": "dopri5",
        "trainer.milestones": "[60, 100]",
        "trainer.clip_norm": "Infinity",
    }
    last = {metric["name"]["tag"]: metric["value"] for metric in group["metricValues"]}
    assert (last["val/accuracy"], last["test/accuracy"], last["train/loss"]) == (0.75, 0.75, pytest.approx(1 / 3))
    assert [session["name"] for session in group["sessions"]] == ["whole"]

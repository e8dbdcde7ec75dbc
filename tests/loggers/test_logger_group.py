import json

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from node_cli.config import config_dir
from node_cli.loggers.base import Loggers


@pytest.mark.parametrize(
    ("choice", "names"), [("none", []), ("jsonl", ["jsonl"]), ("[tensorboard,jsonl]", ["tensorboard", "jsonl"])]
)
def test_the_group_is_a_list(choice, names, tmp_path):
    with initialize_config_dir(config_dir(), version_base="1.3"):
        parts = instantiate(compose(overrides=[f"+logger={choice}"])).get("logger", {})
    assert list(parts) == names
    loggers = Loggers([build(tmp_path, None) for build in parts.values()])
    loggers.log_scalars(1, {"lr": 0.5})
    loggers.close()
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == ("tensorboard" in names)
    assert (tmp_path / "metrics.jsonl").exists() == ("jsonl" in names)
    if "jsonl" in names:
        assert json.loads((tmp_path / "metrics.jsonl").read_text())["lr"] == 0.5

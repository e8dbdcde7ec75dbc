"""Any words are a config, or are refused in lines of their own."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mutations import mutations, same_every_time

from node_cli.cli.compose import CommandLine, checked_config, hydra_ready
from node_cli.cli.errors import one_line_errors
from node_cli.cli.overrides import parse
from node_cli.cli.train import with_overrides_of_run, with_overrides_of_sweep

pytestmark = pytest.mark.slow

SOUND = [
    *("model=odenet", "model.width=8", "solver=rk4", "solver.rtol=1e-4", "gradient=adjoint", "trainer.epochs=3"),
    *("optimizer.betas=[0.9,0.99]", "run_dir=outputs/${now:%H}", "logger=[tensorboard,jsonl]", "seed=1,2"),
    *("+model.more={a:1}", "~trainer.epochs", "dataset=npz", "dataset.path='a b.npz'", "hydra/launcher=basic"),
    *("model._target_=os.system", "seed=range(0,3)", "model=glob(*)", "device=${oc.env:HOME}", "num_threads=null"),
    *("sweep.name=a", "resume=auto", "hydra.job.chdir=true", "packages=[os]", "solver.atol=choice(1,2)"),
]
KEYS = [word.partition("=")[0] for word in SOUND]
VALUES = [
    *("", "null", "nan", "-inf", "1e999", "9" * 5000, "0x" + "f" * 5000, "[" * 400, "[" * 25 + "]" * 25, "{a:{b:1}}"),
    *("${seed}", "${run_dir}", "${oc.env:NONE}", "${oc.create:{_target_: os.system}}", "'", "\\", "a,b", "a" * 30_000),
    *("range(0,1e9)", "range(1,5,0)", "range(0,9,-1)", "choice()", "interval(0,1)", "sort(3,1)", "shuffle(1,2)"),
    *("tag(a,1)", "int(x)", "\0", "\udcff", "\u202e", "../../x", "!!python/name:os.system", "*", "=", "@a:b", "list:a"),
]
texts = st.text(max_size=40)
mutated = st.sampled_from([text.encode() for text in SOUND]).flatmap(mutations)
word = st.one_of(
    texts,
    st.sampled_from(SOUND),
    st.builds("{}={}".format, st.sampled_from(KEYS), st.sampled_from(VALUES) | texts),
    mutated.map(lambda content: content.decode(errors="surrogateescape")),  # as Python reads a command line
)


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@settings(same_every_time, max_examples=150)
@given(words=st.lists(word, min_size=1, max_size=3))
@example(words=["seed=range(1,5,0)"])
@example(words=["model=\udcff\r\33[2J"])
@example(words=["seed=range(5,1)", "model=glob(nothing)"])
def test_any_words(capsys, tmp_path, words):
    configs, status = outcome(words)
    lines = capsys.readouterr().err.splitlines()
    if status == 2:
        assert lines
        assert all(text.startswith("node-train: ") and text.isprintable() for text in lines)
    else:
        assert configs
        assert all(config["model"]["_target_"].startswith("node_cli.") for config in configs)
    assert list(tmp_path.iterdir()) == []


def outcome(words: list[str]) -> tuple[list[dict], object]:
    """The configs that the words stand for, or the exit status."""
    try:
        with one_line_errors("node-train"):
            line = CommandLine("train", with_overrides_of_run(with_overrides_of_sweep(parse(words))))
            with hydra_ready(line):
                return [checked_config(job) for job in line.jobs()[:3]], 0
    except SystemExit as end:
        return [], end.code

"""The commands that README.md, CONTRIBUTING.md, the pages of docs/ and the help texts show are typed.

All of them are typed in one folder, page by page, beside runs that a page may name without making them. A command is
made small by SMALL, which changes sizes and nothing that it means. What cannot be run here is in NOT_TYPED, with the
reason, or in COMPOSED, and is then put together by `--cfg job`; so is what differs in numbers from one that was run. A
mistake that a page shows has the answer that stands there.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import yaml
from forked import module_of
from hurried import no_sync, one_drawing

from node_cli.cli.compose import CommandLine, checked_config, hydra_ready
from node_cli.cli.overrides import parse, texts_of
from node_cli.runs.folder import Request, RunFolder

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

NOT_TYPED = {  # how a command starts: why it is not typed here
    "make ": "the rules of the Makefile, which make the environment that this test runs in",
    "tensorboard ": "a server, which tests/loggers asks over HTTP",
    "node-train --config-dir configs ": "examples/own_task, which tests/test_own_task.py types",
    "node-eval --config-dir configs ": "examples/own_task, which tests/test_own_task.py types",
    "node-predict samples=...": "what a task offers, shown without a run",
    "python benchmarks/": "measurements of minutes; tests/test_torture.py and test_table1.py start theirs",
}
COMPOSED = {  # what stands in commands that are put together, and not run: why
    "dataset=mnist": "a download",
    "experiment=paper_mnist": "a download",
    "dataset.path=miniboone.npz": "a download",
    "dataset=miniboone": "a file of the reader's; tests/datasets/test_miniboone.py writes one",
    "dataset=ushcn": "a download",
    "dataset.path=points.npz init_from=": "images of the reader's; tests/cli/test_init_from.py has some",
    "dataset.label=dose": "a table of the reader's; tests/cli/test_series_labels.py has one",
    "dataset.path=mine.npz dataset.label=outcome": "arrays of the reader's; tests/cli/test_series_labels.py has some",
    "dataset.path=ward.npz": "arrays that the page makes with Python; tests/cli/test_series_labels.py has such",
    "trainer.devices=4": "processes; tests/cli/test_devices.py starts them",
    "hydra/launcher=submitit_slurm": "a cluster",
    "hydra/launcher=joblib": "processes; tests/cli/test_launchers.py starts them",
    "torchrun ": "several machines; tests/cli/test_devices.py starts its processes",
    "postgresql+psycopg2://": "a server; tests/tuning/ share studies in SQLite",
    "mysql+pymysql://": "a server; tests/tuning/ share studies in SQLite",
}
STAND_INS = {  # what a reader puts his own in place of, or what would never end
    "outputs/2026-11-21/10-00-00-123456": "outputs/yours",
    "resume=<folder>": "resume=outputs/yours",
    "step-00000184.pt": "last.pt",
    "run=... solver.": "run=outputs/yours solver=rk4 solver.",
    "run=outputs/mine dataset.path": "run=outputs/points dataset.path",
    "run=outputs/digits dataset.path=new.npz": "run=outputs/digits dataset.path=digits.npz",
    "run=outputs/digits solver.rtol=1e-6": "run=outputs/digits solver.rtol=1e-2",
    "node-audit run=...": "node-audit run=outputs/yours",
    "task.kinetic=...": "task.kinetic=0.1",
    "run=outputs/mine split=test dataset.path": "run=outputs/points split=test dataset.path",
    "sqlite:////shared/studies.db": "sqlite:///studies.db",
    "gradient=direct,adjoint seed=0,1,2": "gradient=direct,adjoint seed=0",
    "gradient=direct,adjoint seed=0,1 dataset": "gradient=direct,adjoint seed=0 dataset",
    "solver.rtol=1e-2,1e-4,1e-6 seed=0,1,2": "solver.rtol=1e-2,1e-4 seed=0",
    "model=cde,gru,gru_d,ode_rnn -m dataset.drop=0,0.3,0.5,0.7 seed=0,1,2,3,4": "model=cde,gru -m dataset.drop=0.5",
    "model=cde,gru,gru_d,ode_rnn -m dataset.drop=0,0.3,0.5,0.7": "model=cde,gru -m dataset.drop=0.5",
    "experiment=best seed=0,1,2": "experiment=best seed=0",
    " --watch": "",
}
QUIET = "num_threads=1 device=cpu"
DIGITS = "dataset.val_fraction=0.02 dataset.test_fraction=0.02"
RUN = f"trainer.max_steps=1 trainer.batch_size=8 logger=jsonl {QUIET}"
TRIAL = f"tune.trials=1 tune.workers=1 trainer.max_steps=1 logger=jsonl {DIGITS} {QUIET}"
TRIALS = TRIAL.replace("trials=1", "trials=2")
AUDIT = f"rtols=[1e-1] problem.batch_size=2 problem.reference_rtol=1e-2 problem.num_times=2 logger=none {QUIET}"
SMALL = {  # the first pattern that a command matches: the sizes that are added to it
    r"--help|sweep\.resume=|node-report": "",
    r"node-train resume=": "trainer.max_steps=4",
    r"node-train .*task=density dataset=csv": RUN,
    r"node-train .*task=density dataset=": f"dataset.num_samples=100 {RUN}",
    r"node-train .*task=density": f"model.width=4 {DIGITS} {RUN}",
    r"node-train .*optimizer=lbfgs": f"optimizer.max_iter=2 trainer.updates_per_epoch=1 {RUN}",
    r"node-train .*dataset=storms": f"dataset.stride=50 trainer.updates_per_epoch=1 {RUN}",
    r"node-train .*dataset\.label=": f"model.width=4 trainer.updates_per_epoch=1 {RUN}",
    r"node-train .*dataset=japanese_vowels": f"model.width=4 trainer.updates_per_epoch=1 {RUN}",
    r"node-train .*task=trajectory": f"trainer.updates_per_epoch=1 {RUN}",
    r"node-train .*task=latent( run_dir=|$)": f"dataset.num_series=12 dataset.val=3 dataset.test=3 {RUN}",
    r"node-train .*task=latent model=gru": f"dataset.num_series=12 dataset.val=3 dataset.test=3 {RUN}",
    r"node-train .*dataset=moons": f"dataset.num_samples=100 {RUN}",
    r"node-train .*dataset=npz": f"model.width=4 {RUN}",
    r"node-train .*(experiment=best|model=linear)": f"{DIGITS} {RUN}",
    r"node-train": f"model.width=4 {DIGITS} {RUN}",
    r"node-tune .*task=trajectory": f"tune.trials=1 trainer.max_steps=1 logger=jsonl {QUIET}",
    r"node-tune .*task=latent": f"dataset.num_series=12 dataset.val=3 dataset.test=3 tune.trials=1 trainer.max_steps=1 "
    f"logger=jsonl {QUIET}",
    r"node-tune .*dataset=japanese_vowels": "tune.space.model.width=[4] tune.trials=1 trainer.max_steps=1 "
    f"logger=jsonl {QUIET}",
    r"node-tune .*tune=(odenet|error_and_nfe)": f"{TRIAL} tune.space.model.width=[4] "
    "tune.space.solver.rtol=[1e-2,1e-3] tune.space.gradient.rtol=null tune.space.gradient=[direct,adjoint]",
    r"node-tune .*model\.width|node-tune .*tune=mine": TRIAL,
    r"node-tune .*model=mlp": f"model.width=4 {TRIALS}",
    r"node-tune": f"model.width=4 {TRIAL}",
    r"node-audit .*problem=scalar": "rtols=[1e-3] logger=none",
    r"node-audit .*problem=linear": "rtols=[1e-3] problem.num_observations=2 problem.euler_steps=[1,2,3] logger=none",
    r"node-audit .*problem=resnet_euler": "rtols=[1e-2] problem.channels=2 problem.batch_size=2 "
    "problem.euler_steps=[6,8,10] logger=none",
    r"node-audit .*run=": AUDIT,
    r"node-audit": f"{AUDIT} model.width=4",
    r"node-eval": QUIET,
}
OF_A_KIND = ("node-train", "node-tune", "node-audit")  # what is put together where one of its kind was run already
NUMBERS = re.compile(  # what does not make a command one of another kind
    r"(?!sweep\.|tune\.)\w+\.|tune\.(space|trials|workers)|(seed|num_threads|device|rtols)=|run_dir=outputs/audit"
)
PLACES = {"run_dir": "", "sweep.name": "outputs/sweeps/", "tune.name": "outputs/studies/"}
MADE_BEFORE = {  # what pages name, and may not make themselves
    "outputs/yours": f"node-train run_dir=outputs/yours model.width=4 {DIGITS} {RUN}",
    "outputs/moons": f"node-train run_dir=outputs/moons dataset=moons dataset.num_samples=100 model=odenet_mlp {RUN}",
    "outputs/points": f"node-train run_dir=outputs/points dataset=npz dataset.path=points.npz model=odenet_mlp {RUN}",
    "outputs/sweeps/mine": f"node-train -m gradient=direct,adjoint sweep.name=mine model.width=4 {DIGITS} {RUN}",
}


@dataclass(frozen=True)
class Command:
    """One command line as a document has it, and the answer that a transcript shows below it."""

    text: str
    place: str
    answer: str | None

    @property
    def is_typed(self) -> bool:
        return not self.text.startswith(tuple(NOT_TYPED))

    @property
    def is_composed(self) -> bool:
        return any(part in self.text for part in COMPOSED)

    @property
    def own_text(self) -> str:
        """With stand-ins for what is the reader's."""
        text = self.text[self.text.index("node-") :]
        for shown, own in STAND_INS.items():
            text = text.replace(shown, own)
        return text

    @property
    def kind(self) -> str:
        """The same for those OF_A_KIND that differ in numbers alone; else the command itself."""
        if not self.text.startswith(OF_A_KIND):
            return self.text
        return " ".join(word for word in shlex.split(self.own_text) if not NUMBERS.match(word))

    def words(self) -> list[str]:
        """Made small."""
        text = self.own_text
        added = (added for pattern, added in SMALL.items() if re.search(pattern, text))
        return shlex.split(text) + next(added, "").split()


def composing(words: list[str]) -> list[str]:
    """What puts the first job of a command line together, and runs nothing."""
    job = [re.sub(r"=(\w+)(,\w+)+$", r"=\1", word) for word in words if word != "-m"]
    return [*job, "--cfg", "job"]


def without_code(block: re.Match[str]) -> str:
    """Empty lines for a block, but for what is typed in it."""
    return "\n".join(f"    {line[2:]}" if line.startswith("$ ") else "" for line in block[0].split("\n"))


def answers_in(text: str) -> dict[str, str]:
    """What the transcripts of a document show below their commands."""
    blocks = re.findall(r"^```console\n(.*?)^```", text, flags=re.M | re.S)
    parts = [part.partition("\n") for block in blocks for part in re.split(r"^\$ ", block, flags=re.M)[1:]]
    return {command.strip(): answer.strip() for command, _, answer in parts}


def shown_in(path: Path) -> list[Command]:
    """The commands of a document, set off by four spaces, in backquotes or by a $, without what a # says of them."""
    whole = path.read_text("utf-8")
    answers = answers_in(whole)
    text = re.sub(r"^```.*?^```", without_code, whole, flags=re.M | re.S)
    start = "|".join(["node-\\w+", "torchrun ", "pip install .* && ", *NOT_TYPED])
    found = re.finditer(rf"^    ((?:{start})(?:\\\n|.)*)|`((?:{start}) ?[^`\n]* [^`\n]+)`", text, flags=re.M)
    commands = []
    for one in found:
        command = re.sub(r" *\\\n +", " ", re.sub(r"  *# .*", "", one[1] or one[2])).strip()
        place = f"{path.name}:{text.count(chr(10), 0, one.start()) + 1}"
        commands.append(Command(command, place, answers.get((one[1] or "").strip())))
    return commands


def write_files_of(path: Path) -> None:
    """The files that a document names before a block, in backquotes: `mylab/nets.py`."""
    found = re.findall(r"^((?:[^\n]+\n)+)\n```\w+\n(.*?)^```", path.read_text("utf-8"), flags=re.M | re.S)
    for paragraph, content in found:
        for name in re.findall(r"`([\w/]+\.(?:py|yaml|csv))`", paragraph)[-1:]:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_text(content)


def type_it(words: list[str]) -> tuple[int, str]:
    """The exit status, and what was said."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        no_sync(patch)
        one_drawing(patch)
        patch.setattr(sys, "argv", words)
        patch.setattr(sys, "path", list(sys.path))
        if words[0] == "node-tune":
            patch.setattr("node_cli.tuning.workers.run_workers", in_this_process)
            patch.setattr("node_cli.training.launched.end_with_parent", lambda: None)
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            try:
                import_module(module_of(words[0])).main()
            except SystemExit as end:
                return int(end.code or 0), printed.getvalue()
    return 0, printed.getvalue()


def in_this_process(work: Callable[[], None], count: int, restarts: int) -> None:
    """The work of a search's processes, without their start."""
    work()


def make_room(words: list[str]) -> None:
    """For what a page makes anew, whatever another page has made by that name."""
    named = dict(word.partition("=")[::2] for word in words)
    if words[0] == "node-tune" and "tune.name" not in named:
        named["tune.name"] = named.get("tune", "default")
    if words[0] == "node-predict":
        out = Path(named.get("out", "predictions.csv"))
        for path in [out, *Path().glob(f"{out.stem}_*")]:
            path.unlink(missing_ok=True)
    for key in PLACES.keys() & named.keys():
        if "resume" not in named:
            shutil.rmtree(f"{PLACES[key]}{named[key]}", ignore_errors=True)


def went_wrong(command: Command, run_before: set[str]) -> str:
    """How the command ended, if not as the document has it."""
    is_mistake = (command.answer or "").startswith("node-")
    words = shlex.split(command.own_text) if is_mistake else command.words()
    if command.is_composed or (command.kind in run_before and words[0] in OF_A_KIND and not is_mistake):
        words = composing(shlex.split(command.own_text))
    elif command.kind in run_before:
        return ""
    else:
        make_room(words)
        run_before.add(command.kind)
    status, said = type_it(words)
    if is_mistake:
        return "" if (status, said.strip()) == (2, command.answer) else f"status {status}: {said}"
    is_fine = status == 0 or (status, command.answer) == (2, "")  # a mistake, perhaps, whose answer is yet to be put in
    return "" if is_fine else f"status {status}: {said[-600:]}"


@pytest.fixture(scope="module")
def _reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a reader, who has points and some runs."""
    folder = tmp_path_factory.mktemp("reader")
    targets = np.arange(60) % 2
    points = np.random.default_rng(0).normal(size=(60, 2)) + targets[:, None]
    (folder / "moved").mkdir()
    for name in ("points.npz", "moved/points.npz"):
        np.savez(folder / name, inputs=points.astype(np.float32), targets=targets)
    np.savez(folder / "new.npz", inputs=points.astype(np.float32))
    np.savez(folder / "digits.npz", inputs=np.zeros((2, 1, 8, 8), np.float32))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for text in MADE_BEFORE.values():
            status, said = type_it(shlex.split(text))
            assert status == 0, said
        shutil.copytree("outputs/yours", "outputs/mine")
    return folder


@pytest.fixture
def _folder(_reader: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where a document is typed; the packages in it, which others have by the same name, are forgotten."""
    monkeypatch.chdir(_reader)
    yield
    shutil.rmtree("mylab", ignore_errors=True)
    for name in [name for name in sys.modules if name.split(".")[0] == "mylab"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def run_before() -> set[str]:
    """The kinds of commands that were run."""
    return set()


PAGES = {str(path.relative_to(ROOT)): path for path in DOCUMENTS if any(c.is_typed for c in shown_in(path))}


@pytest.mark.usefixtures("_folder")
@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_document_in_order(page: str, run_before: set[str]):
    write_files_of(PAGES[page])
    failed = []
    for command in filter(lambda command: command.is_typed, shown_in(PAGES[page])):
        if ended := went_wrong(command, run_before):
            failed.append(f"{command.place}: {command.text}\n{ended}")
    assert not failed, "\n".join(failed)


def test_every_table_is_of_use():
    """No reason, stand-in or size that no command has any more, and no rule or script that is not there."""
    commands = [command.text for path in DOCUMENTS for command in shown_in(path)]
    texts = "\n".join(commands)
    assert len(commands) > 40
    assert [start for start in NOT_TYPED if not re.search(f"^{start}", texts, flags=re.M)] == []
    assert [part for part in (*COMPOSED, *STAND_INS) if part not in texts] == []
    assert [pattern for pattern in SMALL if not re.search(pattern, texts)] == []
    rules = re.findall(r"^make (\w+)", texts, flags=re.M)
    assert set(rules) <= set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.M))
    scripts = re.findall(r"^python (\S+)", texts, flags=re.M)
    assert [script for script in scripts if not (ROOT / script).is_file()] == []


def examples_of(command: str) -> list[str]:
    """The commands of a help text, without what stands beside them."""
    template = yaml.safe_load((ROOT / "configs" / f"{command}.yaml").read_text())["hydra"]["help"]["template"]
    lines = [line.strip() for line in template.splitlines() if line.startswith("  node-")]
    return [re.sub(r"   *[^ ].*", "", line) for line in lines]


@pytest.fixture
def _named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the examples of the help name: a run, a sweep, parts, a space and a study of one's own."""
    monkeypatch.chdir(tmp_path)
    line = CommandLine("train", parse(["model=mlp", "dataset=npz", "dataset.path=points.npz"]))
    with hydra_ready(line):
        config = checked_config(line)
    run = Path("outputs/2026-11-21/10-00-00-123456")
    run.mkdir(parents=True)
    choices = {"dataset": "npz", "model": "mlp", "solver": "dopri5"}
    RunFolder(run).write_request(Request(config, texts_of(line.overrides), choices))
    files = {
        "outputs/sweeps/mine/sweep.json": '{"overrides": ["seed=0"], "jobs": [["seed=0"]]}',
        "mine/model/mine.yaml": "defaults: [mlp]",
        "mine/tune/mine.yaml": "defaults: [default, _self_]",
        "outputs/studies/odenet/experiment/best.yaml": "# @package _global_\nmodel: {width: 8}",
    }
    for name, content in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(content)


@pytest.mark.usefixtures("_named")
@pytest.mark.parametrize("command", ["train", "eval", "predict", "audit", "tune"])
def test_the_examples_of_a_help_text_can_be_put_together(command: str):
    examples = examples_of(command)
    assert len(examples) >= 3
    composed = {text: type_it(composing(shlex.split(text))) for text in examples}
    assert {text: ended for text, ended in composed.items() if ended[0]} == {}

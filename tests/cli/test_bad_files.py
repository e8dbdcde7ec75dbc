"""Whatever lies in a file, a command answers in one line, exits with status 2, writes nothing and runs nothing."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

TRAP = "executed"  # what a payload would make in the working folder
POINTS, TARGETS = np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 3
SMALL = ["model=mlp", "model.width=4", "trainer.max_steps=1", "logger=jsonl"]
NPZ = ["node-train", "dataset=npz", "dataset.path=mine.npz", *SMALL]
MNIST = ["node-train", "dataset=mnist", "dataset.mirrors=[]", *SMALL]
MINE = ["node-train", "--config-dir", ".", "model=mine"]
EXPERIMENT = ["node-train", "--config-dir", ".", "experiment=mine", *SMALL]
RESUME = ["node-train", "resume=run", "trainer.max_steps=2"]
EVAL = ["node-eval", "run=run"]
AUDIT = ["node-audit", "run=run", "run_dir=audit"]
RUN_IN = ["node-train", "run_dir=r", *SMALL]
TYPES = "model=mine names no class: it needs a _target_, such as package.module.Class"
HYDRA = "of Hydra's own keys only hydra/launcher and those of hydra.launcher can be set"
REFERS = "must refer to other keys (${key}) or to ${now:%Y} alone, got"
PLAIN = "must not refer to anything (with a dollar sign and a brace), got"
IMAGES = "data/mnist/train-images-idx3-ubyte.gz"
CONFIG, WORDS = "run/.hydra/config.yaml", "run/.hydra/overrides.yaml"


class Trap:
    def __reduce__(self):
        return os.mkdir, (TRAP,)


def file(name: str, content: bytes | str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.rmtree(path)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return make


def directory(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir(parents=True)

    return make


def edited(name: str, old: str, new: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return make


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def header(shape: str) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text


def zipped(inputs: bytes, more: tuple[str, bytes] | None = None, change: Callable | None = None) -> Callable:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inputs.npy", inputs)
        archive.writestr("targets.npy", npy(TARGETS))
        if more is not None:
            archive.writestr(*more)
    content = bytearray(stream.getvalue())
    if change is not None:
        change(content)
    return file("mine.npz", bytes(content))


def saved(**arrays: np.ndarray) -> Callable[[Path], None]:
    stream = io.BytesIO()
    np.savez(stream, **{"inputs": POINTS, "targets": TARGETS, **arrays})
    return file("mine.npz", stream.getvalue())


def in_both_headers(offset: int, value: bytes) -> Callable[[bytearray], None]:
    """Changes the same field of the first member in the archive and in its directory, where it lies 2 bytes later."""

    def change(content: bytearray) -> None:
        for place in (offset, content.index(b"PK\1\2") + offset + 2):
            content[place : place + len(value)] = value

    return change


def laughs(item: str) -> str:
    """Eight lists of ten, each of the one before."""
    lists = [f"a{k}: &a{k} {item.format(*[f'*a{k - 1}'] * 10)}" for k in range(1, 9)]
    return "\n".join(["a0: &a0 {x: 1}", *lists]) + "\n"


BOMB = laughs("[{}, {}, {}, {}, {}, {}, {}, {}, {}, {}]")
MERGES = laughs("{{<<: [{}, {}, {}, {}, {}, {}, {}, {}, {}, {}]}}")
TAG = f"_target_: !!python/object/apply:os.mkdir [{TRAP}]\n"
MLP = "_target_: node_cli.models.mlp.Mlp\n_partial_: true\n"
MKDIR = f"{{_target_: os.mkdir, path: {TRAP}}}"
LAZY = "${oc.create:{_target_: os.mkdir, path: executed}}"
OBJECTS = np.array([Trap()] * 60, dtype=object)

ARRAYS = {
    "objects": (saved(targets=OBJECTS), "mine.npz holds targets, which cannot be read: Object arrays cannot be loaded"),
    "a pickle": (file("mine.npz", pickle.dumps(Trap())), "mine.npz is not a whole .npz file; write it with"),
    "a pickle in a zip": (
        zipped(pickle.dumps(Trap())),
        "mine.npz holds inputs, which cannot be read: it is no .npy array",
    ),
    "a member of another kind": (
        zipped(npy(POINTS), ("a.txt", b"")),
        "mine.npz holds a.txt; allowed are inputs, targets",
    ),
    "a member outside": (zipped(npy(POINTS), ("../inputs.npy", b"")), "mine.npz holds ../inputs; allowed are"),
    "a member twice": (zipped(npy(POINTS), ("inputs", b"")), "mine.npz holds inputs twice; write it with numpy.savez"),
    "an encrypted member": (
        zipped(npy(POINTS), change=in_both_headers(6, b"\1")),
        "mine.npz holds inputs, which cannot be read: it is encrypted",
    ),
    "another packing": (
        zipped(npy(POINTS), change=in_both_headers(8, b"\x61")),
        "mine.npz holds inputs, which cannot be read: it is packed in a way that numpy.savez never does",
    ),
    "terabytes": (
        zipped(header(f"({2**40}, 3)")),
        f"mine.npz holds inputs, which cannot be read: it has 0 bytes of values, {3 * 2**42} expected for shape",
    ),
    "a negative size": (zipped(header("(-1, 3)")), "mine.npz holds inputs, which cannot be read: it has 0 bytes of"),
    "too many values": (
        zipped(npy(POINTS) + bytes(9)),
        "mine.npz holds inputs, which cannot be read: it has 1449 bytes",
    ),
    "code for a shape": (zipped(header(f"__import__('os').mkdir('{TRAP}')")), "mine.npz holds inputs, which cannot be"),
    "a deep header": (zipped(b"\x93NUMPY\1\0" + struct.pack("<H", 9000) + b"(" * 9000), "mine.npz holds inputs, which"),
    "not a number": (saved(val_inputs=POINTS * np.nan, val_targets=TARGETS), "mine.npz: val_inputs holds values that"),
}
MORE_DATA = {
    "too large to normalise": (saved(inputs=POINTS * 1e38), NPZ, "dataset.normalize: the inputs are too large for a"),
    "a folder of arrays": (directory("mine.npz"), NPZ, "dataset.path: there is no file mine.npz; give an .npz file"),
    "a pipe": (lambda folder: os.mkfifo(folder / "mine.npz"), NPZ, "dataset.path: there is no file mine.npz; give"),
    "a device": (None, [*NPZ, "dataset.path=/dev/zero"], "dataset.path: there is no file /dev/zero; give an .npz"),
    "a name too long": (None, [*NPZ, f"dataset.path={'a' * 300}"], "dataset.path: cannot look for the file (File name"),
    "data in a file": (
        file("data", ""),
        [*MNIST, "dataset.mirrors=[http://h/]"],
        "dataset.data_dir: cannot write to data/mnist (Not a directory); give",
    ),
    "a folder for images": (directory(IMAGES), MNIST, f"dataset.data_dir: cannot use {IMAGES} (Is a directory); give"),
    "other images": (file(IMAGES, "x"), MNIST, f"dataset.data_dir: {IMAGES} is damaged or another file: its sha256 is"),
}
OWN_YAML = {
    "aliases of aliases": (BOMB, "model/mine.yaml, line 5: more than 10000 values with every alias written out"),
    "merges of merges": (MERGES, "model/mine.yaml, line 5: more than 10000 values with every alias written out"),
    "an alias of itself": ("a: &a [*a]\n", "model/mine.yaml, line 1: more than 10000 values with every alias"),
    "nested lists": ("a: " + "[" * 5000, "model/mine.yaml, line 1: nested more than 30 deep"),
    "nested indents": ("".join(f"{' ' * k}a:\n" for k in range(90)), "model/mine.yaml, line 30: nested more than 30"),
    "a megabyte": ("#" * 2**21, "model/mine.yaml cannot be read: it is larger than 1,048,576 bytes"),
    "a tag that calls": (TAG, "broken YAML in model/mine.yaml, line 1: could not determine a constructor"),
    "another encoding": (b"a: \xe9\n", "model/mine.yaml is no text in UTF-8: invalid continuation byte at byte 3"),
    "UTF-16": ("a: 1\n".encode("utf-16"), "model/mine.yaml is no text in UTF-8: invalid start byte at byte 0"),
    "a null character": (b"a: 1\0\n", "broken YAML in model/mine.yaml: special characters are not allowed"),
    "nothing": ("", f"model: {TYPES}"),
    "a list": ("[1, 2]", f"model: {TYPES}"),
    "a number": ("3", "the chosen files cannot be put together: Invalid loaded object type: int"),
    "no class": ("width: 3\n", f"model: {TYPES}"),
    "a number for a key": (
        f"{MLP}1: 2\n",
        "model.1 is not allowed: it is no key of node_cli.models.mlp.Mlp in",
    ),
    "a number of many digits": (
        f"{MLP}width: {'9' * 5000}",
        "the chosen files cannot be put together: Exceeds the limit",
    ),
    "a number of many bits": (
        f"{MLP}width: 0x{'f' * 5000}",
        "model.width must be a whole number of 64 bits, got one too",
    ),
    "defaults of itself": (
        "defaults: [mine]\n",
        "the chosen files cannot be put together: nested too deeply, or named",
    ),
    "defaults of no kind": (
        "defaults: 3\n",
        "the chosen files cannot be put together: Invalid defaults list in 'model/",
    ),
    "a target in a list": (
        f"{MLP}width: [[{MKDIR}]]\n",
        "model.width.0.0._target_=os.mkdir is not allowed: a model is what configs/model/ names, or comes from",
    ),
    "a target by reference": (
        f"{MLP}width: [{LAZY!r}]\n",
        f"model/mine.yaml: width.0 {REFERS} {LAZY!r}: write the value itself",
    ),
    "a target when built": (f"{MLP}width: '\\{LAZY}'\n", f"model/mine.yaml: width {REFERS} '\\\\{LAZY}'"),
    "a target of the environment": (
        "_target_: ${{oc.env:NONE,os.mkdir}}\n".format(),
        f"model/mine.yaml: _target_ {REFERS}",
    ),
}
HYDRAS_YAML = {
    "callbacks": (f"callbacks: {{x: {MKDIR}}}", "callbacks"),
    "a log handler": (
        f"job_logging: {{handlers: {{x: {{'()': os.mkdir, path: {TRAP}}}}}}}",
        "job_logging.handlers.x.()",
    ),
    "another folder": ("run: {dir: elsewhere}", "run.dir"),
    "another environment": ("job: {env_set: {LD_PRELOAD: x.so}}", "job.env_set"),
    "another working folder": ("job: {chdir: true}", "job.chdir"),
}
RECORDS = {
    "config in bytes": (
        file(CONFIG, b"\xb4\0\xff"),
        EVAL,
        f"{CONFIG} is no text in UTF-8: invalid start byte at byte 0",
    ),
    "config in bytes, resumed": (file(CONFIG, b"\xb4"), RESUME, f"{CONFIG} is no text in UTF-8: invalid start byte"),
    "config of aliases": (file(CONFIG, BOMB), EVAL, f"{CONFIG}, line 5: more than 10000 values with every alias"),
    "config of aliases, resumed": (file(CONFIG, BOMB), RESUME, f"{CONFIG}, line 5: more than 10000 values"),
    "config of aliases, audited": (file(CONFIG, BOMB), AUDIT, f"{CONFIG}, line 5: more than 10000 values"),
    "deep config": (file(CONFIG, "[" * 9000), EVAL, f"{CONFIG}, line 1: nested more than 30 deep"),
    "config with a tag": (
        file(CONFIG, TAG),
        EVAL,
        f"{CONFIG} is damaged, line 1: could not determine a constructor for",
    ),
    "empty config": (file(CONFIG, ""), EVAL, f"{CONFIG} is damaged: it holds no config"),
    "part of a config": (
        file(CONFIG, "seed: 0\n"),
        EVAL,
        f"{CONFIG} is damaged: it has no precision; it has no dataset;",
    ),
    "config without class": (
        edited(CONFIG, "model:\n", "model: 3\nx:\n"),
        EVAL,
        f"{CONFIG} is damaged: model names no",
    ),
    "config with another seed": (
        edited(CONFIG, "seed: 0\nnum", "seed: x\nnum"),
        EVAL,
        f"{CONFIG} is damaged: seed must",
    ),
    "config with a target": (
        edited(CONFIG, "node_cli.models.mlp.Mlp", "os.mkdir"),
        EVAL,
        "model._target_=os.mkdir is not allowed: a model is what configs/model/ names, or comes from a package",
    ),
    "config with a package": (
        edited(CONFIG, "packages: []\n", f"packages: [os]\nx: [{MKDIR}]\n"),
        AUDIT,
        "x.0._target_=os.mkdir is not allowed: only a package that you name on the command line may be called here",
    ),
    "config with a reference": (
        edited(CONFIG, "  width: 4", f"  width: {LAZY!r}"),
        EVAL,
        f"run/checkpoints/best.pt was trained with another config than this run has (model.width: 4 -> {LAZY}",
    ),
    "config of another model": (
        edited(CONFIG, "  width: 4", "  width: 5"),
        EVAL,
        "run/checkpoints/best.pt was trained with another config than this run has (model.width: 4 -> 5): restore",
    ),
    "words in bytes": (file(WORDS, b"\xb4"), RESUME, f"{WORDS} is no text in UTF-8: invalid start byte at byte 0"),
    "no words": (lambda run: (run / WORDS).unlink(), RESUME, f"{WORDS} cannot be read: No such file or directory"),
    "words as numbers": (file(WORDS, "[1, 2]"), RESUME, f"{WORDS} is damaged: 1 is no override"),
    "words for Hydra": (
        file(WORDS, f"['+hydra.callbacks.x={MKDIR}']"),
        RESUME,
        f"hydra.callbacks.x is not used here: {HYDRA}",
    ),
    "a folder for words": (directory(WORDS), RESUME, f"{WORDS} cannot be read: Is a directory"),
    "a folder for metrics": (
        directory("run/metrics.jsonl"),
        RESUME,
        "run/metrics.jsonl must be a file of the run, and is",
    ),
    "metrics in bytes": (
        file("run/metrics.jsonl", b"\xff\n"),
        RESUME,
        "run/metrics.jsonl, line 1: expected a JSON object",
    ),
    "deep metrics": (
        file("run/metrics.jsonl", "[" * 99999 + "\n"),
        RESUME,
        "run/metrics.jsonl, line 1: expected a JSON",
    ),
    "endless metrics": (
        file("run/metrics.jsonl", '{"step": Infinity}\n'),
        RESUME,
        "run/metrics.jsonl, line 1: expected a",
    ),
    "an empty checkpoint": (file("run/checkpoints/best.pt", ""), EVAL, "run/checkpoints/best.pt is damaged, or no"),
    "a folder for it": (directory("run/checkpoints/best.pt"), EVAL, "no checkpoint at run/checkpoints/best.pt"),
    "a damaged sweep": (
        file("sweep/sweep.json", "[" * 99999),
        ["node-train", "-m", "sweep.resume=sweep"],
        "sweep.resume: sweep/sweep.json is damaged",
    ),
}
PLACES = {
    "a file for the run": (file("r", ""), RUN_IN, "run_dir=r cannot be written: File exists"),
    "a file above it": (file("r", ""), [*RUN_IN, "run_dir=r/a"], "run_dir=r/a cannot be written: Not a directory"),
    "a file for checkpoints": (
        file("r/checkpoints", ""),
        RUN_IN,
        "r/checkpoints must be a folder of the run, and is a file",
    ),
    "a file for the config": (file("r/.hydra", ""), RUN_IN, "r/.hydra must be a folder of the run, and is a file: set"),
    "a folder for the log": (
        directory("r/run.log"),
        RUN_IN,
        "r/run.log must be a file of the run, and is a folder: set",
    ),
    "a folder for the curves": (directory("r/curves.png"), RUN_IN, "r/curves.png must be a file of the run, and is a"),
    "a link to nowhere": (
        lambda folder: (folder / "r").symlink_to("nowhere"),
        RUN_IN,
        "run_dir=r cannot be written: File",
    ),
    "a file of YAML": (file("f", ""), ["node-train", "--config-dir", "f"], "--config-dir must be a folder, got f"),
    "a run of one file": (file("run", ""), EVAL, "no run at run: run/.hydra/config.yaml does not exist"),
    "a name too long to resume": (
        None,
        ["node-train", f"resume={'a' * 300}"],
        "resume must be a run folder, a checkpoint",
    ),
    "a report on a file": (file("f", ""), ["node-report", "f"], "no such folder: f"),
    "a report on nothing": (directory("f"), ["node-report", "f"], "no runs in f: a run has a summary.json or a .hydra"),
}
CASES = {
    **{name: (make, NPZ, f"dataset.path: {line}") for name, (make, line) in ARRAYS.items()},
    **MORE_DATA,
    **{f"YAML: {name}": (file("model/mine.yaml", text), MINE, line) for name, (text, line) in OWN_YAML.items()},
    **{
        f"Hydra's {name}": (
            file("experiment/mine.yaml", f"# @package _global_\nhydra:\n  {text}\n"),
            EXPERIMENT,
            f"hydra.{key} is set in a file of .: {HYDRA}",
        )
        for name, (text, key) in HYDRAS_YAML.items()
    },
    **PLACES,
}


def state(folder: Path) -> dict[str, object]:
    """Every path, with the content of the files."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, typed_in: Callable[..., None]) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    typed_in(folder, "node-train", *SMALL, "run_dir=run", "num_threads=1")
    return folder / "run"


def assert_refused(typed: Callable, folder: Path, words: list[str], line: str) -> None:
    before = state(folder)
    result = typed(*words)
    assert result.err.startswith(f"{words[0]}: {line.replace('{folder}', str(folder))}")
    assert result.err.count("\n") == 1
    assert result.status == 2
    assert result.out == ""
    assert state(folder) == before


@pytest.mark.parametrize(("make", "words", "line"), CASES.values(), ids=CASES)
def test_one_line_nothing_written_nothing_run(typed, tmp_path, make, words, line):
    if make is not None:
        make(tmp_path)
    assert_refused(typed, tmp_path, words, line)


@pytest.mark.parametrize(("make", "words", "line"), RECORDS.values(), ids=RECORDS)
def test_a_damaged_run_is_refused_and_left_as_it_is(typed, tmp_path, trained, make, words, line):
    shutil.copytree(trained, tmp_path / "run")
    make(tmp_path)
    assert_refused(typed, tmp_path, words, line)

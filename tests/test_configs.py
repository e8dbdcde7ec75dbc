"""Every YAML file under configs/ composes and builds; what trains takes one training step."""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from true_formats import write_all

from node_cli.audit.base import make_cases
from node_cli.build import audits_a_model, build_audit, build_gradient, build_problem, build_solver, build_trainer
from node_cli.config import config_dir, resolved
from node_cli.datasets import cifar10, fashion_mnist, mnist
from node_cli.datasets.download import RemoteFile
from node_cli.datasets.idx import IdxFiles
from node_cli.datasets.series.tables import FILES

CONFIGS = Path(config_dir())
CHOICES = [(path.parent.name, path.stem) for path in sorted(CONFIGS.glob("*/*.yaml"))]
OF_SERIES = {path.stem for path in CONFIGS.glob("*/*.yaml") if "s.series." in path.read_text("utf-8")}
LABELLED_POINTS = {
    "moons",
    "spheres",
    "arms",
    "eight_gaussians",
    "eight_gaussians_to_moons",
    "checkerboard",
    "rings",
}
OF_LABELS = {"cde", "gru_d", "ode_rnn"}
WITHOUT_CLASSES = {"swiss_roll", "patches", "faithful", "miniboone"}
DOWNLOADED = {  # and what suits the small files
    "physionet2012": ["dataset.val=4", "dataset.test=4"],
    "ushcn": ["dataset.val=2", "dataset.test=2", "dataset.context=10"],
    "human_activity": ["dataset.val=2", "dataset.test=2", "dataset.num_times=10", "dataset.context=5"],
    "character_trajectories": [],
    "miniboone": [],
}
OF_TRAINING = [(group, choice) for group, choice in CHOICES if group not in ("problem", "tune")]
PROBLEMS = [choice for group, choice in CHOICES if group == "problem"]
SMALL = ["trainer.batch_size=4", "solver.max_nfe=500", "device=cpu"]


def write_idx_files(folder: Path) -> IdxFiles:
    """Forty images of ten classes in each of the two splits, in MNIST's own format."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    contents = {}
    for split in ("train", "t10k"):
        images = random.integers(0, 256, (40, 28, 28), dtype=np.uint8)
        labels = np.arange(40, dtype=np.uint8) % 10
        contents[f"{split}-images-idx3-ubyte.gz"] = struct.pack(">4I", 2051, 40, 28, 28) + images.tobytes()
        contents[f"{split}-labels-idx1-ubyte.gz"] = struct.pack(">2I", 2049, 40) + labels.tobytes()
    files = []
    for name, content in contents.items():
        packed = gzip.compress(content)
        (folder / name).write_bytes(packed)
        files.append(RemoteFile(name, hashlib.sha256(packed).hexdigest(), len(packed)))
    return IdxFiles(*files)


def write_cifar_archive(folder: Path) -> RemoteFile:
    """Four images of each class in each of the six members, in CIFAR-10's own format."""
    folder.mkdir(parents=True)
    path = folder / "cifar-10-binary.tar.gz"
    random = np.random.default_rng(0)
    with tarfile.open(path, "w:gz") as archive:
        for name in (*cifar10.TRAIN_MEMBERS, cifar10.TEST_MEMBER):
            records = random.integers(0, 256, (40, 3073), dtype=np.uint8)
            records[:, 0] = np.arange(40) % 10
            member = tarfile.TarInfo(name)
            member.size = records.nbytes
            archive.addfile(member, io.BytesIO(records.tobytes()))
    return RemoteFile(path.name, hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)


@pytest.fixture(scope="module")
def files_of_the_true_format(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    folder = tmp_path_factory.mktemp("files")
    np.savez(
        folder / "mine.npz",
        inputs=np.random.default_rng(0).random((60, 1, 8, 8), dtype=np.float32),
        targets=np.arange(60) % 3,
    )
    rows = [
        f"{name},{time},{time * rate},{rate}.5"
        for name, rate in zip("abcdefghij", range(10), strict=True)
        for time in range(3)
    ]
    (folder / "labelled.csv").write_text("\n".join(["name,time,value,rate", *rows]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mnist, "FILES", write_idx_files(folder / "mnist"))
        patch.setattr(fashion_mnist, "FILES", write_idx_files(folder / "fashion_mnist"))
        patch.setattr(cifar10, "ARCHIVE", write_cifar_archive(folder / "cifar10"))
        write_all(folder, patch)
        yield [f"data_dir={folder}", f"path={folder / 'mine.npz'}", f"path={folder / 'labelled.csv'}"]


def overrides_for(group: str, choice: str, places: list[str]) -> list[str]:
    """The choice, and what it cannot do without."""
    overrides = [f"{group}={choice}", *SMALL]
    data_dir, path, labelled = places
    if choice in ("mnist", "fashion_mnist", "cifar10", "paper_mnist"):
        overrides += [f"dataset.{data_dir}", "dataset.val_fraction=0.5"]
    if choice == "npz":
        overrides += [f"dataset.{path}"]
    if choice in DOWNLOADED:
        overrides += [f"dataset.{data_dir}", *DOWNLOADED[choice]]
    if choice in LABELLED_POINTS:
        overrides += ["model=odenet_mlp"]
    if choice in WITHOUT_CLASSES:
        overrides += ["task=density"]
    if choice == "csv":
        overrides += [f"dataset.path={FILES / 'lynx_hare.csv'}", "dataset.time=year"]
    if choice == "regression":
        overrides += [f"dataset.{labelled}", "dataset.time=time", "dataset.series=name", "dataset.label=rate"]
        overrides += ["dataset.split=series"]
    if choice in OF_LABELS:
        overrides += ["dataset=japanese_vowels"]
    if choice in OF_SERIES or choice == "gru":
        overrides += ["task=trajectory"]
    if choice == "latent_ode":
        overrides += ["task=latent"]
    if choice == "cnf":
        overrides += ["task=density"]
    if choice == "lagrangian":
        overrides += ["dataset.log=false"]
    if choice == "odenet_mlp":
        overrides += ["dataset=moons"]
    if choice == "concat_squash":
        overrides += ["dataset=moons", "model=odenet_mlp"]
    if choice == "scipy":
        overrides += ["gradient=adjoint"]
    return overrides


@pytest.mark.parametrize(("group", "choice"), OF_TRAINING, ids=["/".join(choice) for choice in OF_TRAINING])
def test_composes_builds_and_takes_one_step(group: str, choice: str, files_of_the_true_format: list[str]):
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = resolved(compose("train", overrides_for(group, choice, files_of_the_true_format)))
    trainer = build_trainer(config, build_problem(config))
    assert set(trainer.dataset.splits) == {"train", "val", "test"}
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    batch = next(trainer.dataset.train_batches(4, seed=0, epoch=0))
    update = trainer.updater.update(batch, trainer.state, progress=0.0)
    assert update is not None
    assert np.isfinite(update.means["train/loss"])
    moved = [not torch.equal(was, now) for was, now in zip(before, trainer.model.parameters(), strict=True)]
    assert all(moved)


@pytest.mark.parametrize("choice", PROBLEMS)
def test_a_problem_composes_and_builds_an_audit(choice: str):
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = resolved(compose("audit", [f"problem={choice}", "device=cpu"]))
    assert audits_a_model(config) == (choice == "model")
    audit = build_audit(config, build_problem(config) if audits_a_model(config) else None)
    solver = build_solver(config)
    cases, left_out = make_cases({"dopri5": solver}, {"direct": build_gradient(config)}, config["rtols"])
    assert left_out == []
    assert audit.num_measurements(cases) >= len(cases) > 0


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_key_carries_a_comment(path: Path):
    """`a: 1  # why`; what is nested in a list, or belongs to Hydra, needs none."""
    lines = path.read_text(encoding="utf-8").split("\nhydra:")[0].splitlines()
    values = [line for line in lines if ":" in line and not line.lstrip().startswith(("#", "-", "_", "defaults"))]
    leaves = [line for line in values if line.split("#")[0].split(":", 1)[1].strip()]
    if path.parent.name != "experiment":
        assert [line for line in leaves if "#" not in line] == []


def test_no_python_below_configs():
    assert list(CONFIGS.rglob("*.py")) == []


def groups_of(command: str) -> set[str]:
    """The groups in the defaults list of a command."""
    defaults = yaml.safe_load((CONFIGS / f"{command}.yaml").read_text(encoding="utf-8"))["defaults"]
    return {name for entry in defaults if isinstance(entry, dict) for name in entry if "override" not in name}


def test_every_folder_is_a_group_and_every_group_a_folder():
    there = {path.name for path in CONFIGS.iterdir() if path.is_dir()}
    assert groups_of("train") | groups_of("audit") | groups_of("tune") == there
    # The tests above take all others for training's.
    assert groups_of("audit") - groups_of("train") == {"problem"}
    assert groups_of("tune") - groups_of("train") == {"tune"}

"""The wheel holds all that is needed, and runs from any folder."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_every_yaml_and_nothing_else_of_the_checkout(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    yamls = {f"node_cli/{path.relative_to(ROOT)}" for path in (ROOT / "configs").rglob("*.yaml")}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "node_cli").rglob("*.py")}
    data = {str(path.relative_to(ROOT)) for path in (ROOT / "node_cli" / "datasets" / "files").iterdir()}
    others = {"node_cli/__init__.pyi", "node_cli/py.typed", *data}
    assert len(data) > 4
    assert len(yamls) > 30
    assert yamls | modules | others == {name for name in names if ".dist-info/" not in name}


def test_the_installed_wheel_runs_from_any_folder(wheel: Path, tmp_path: Path):
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)

    def run(*words: str) -> str:
        answer = subprocess.run(
            words, cwd=elsewhere, env={"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True
        )
        assert answer.returncode == 0, answer.stderr
        return answer.stdout

    where = run(sys.executable, "-c", "import node_cli.config as c; print(c.__file__, c.config_dir())").split()
    assert where == [str(site / "node_cli" / "config.py"), str(site / "node_cli" / "configs")]
    quick = [
        "dataset=moons",
        "model=odenet_mlp",
        "model.width=8",
        "trainer.max_steps=1",
        "num_threads=1",
        "run_dir=run",
    ]
    assert "test error" in run(str(site / "bin" / "node-train"), *quick)
    assert "reconstruction" in run(str(site / "bin" / "node-eval"), "run=run", "num_threads=1")
    assert (elsewhere / "run" / "summary.json").is_file()


def test_the_editable_install_runs_from_any_folder(tmp_path: Path):
    script = "import node_cli.config as c; print(c.config_dir())"
    answer = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == str(ROOT / "configs")

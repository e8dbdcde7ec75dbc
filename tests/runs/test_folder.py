import os
import signal
import subprocess
import sys

import pytest

from node_cli.config import ConfigError
from node_cli.runs.folder import Request, RunFolder

HOLDER = """
import sys, time
from pathlib import Path
from node_cli.runs.folder import Request, RunFolder
folder = RunFolder(Path(sys.argv[1]))
folder.lock()
print("locked", flush=True)
time.sleep(60)
"""


def test_a_folder_held_by_another_process_is_refused_until_that_is_killed(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder.path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(ConfigError) as refusal:
            folder.lock()
        assert str(refusal.value) == (
            f"another process is running in {folder.path}: wait for it, or set another run_dir"
        )
        holder.send_signal(signal.SIGKILL)
    folder.lock()
    folder.unlock()


def test_a_lock_can_be_taken_twice_by_its_holder_and_is_freed_at_once(tmp_path):
    folder, other = RunFolder(tmp_path), RunFolder(tmp_path)
    folder.lock()
    folder.lock()
    with pytest.raises(ConfigError, match="another process is running"):
        other.lock()
    folder.unlock()
    other.lock()
    other.unlock()


def test_what_a_run_would_write_through_is_named(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    (tmp_path / "elsewhere").mkdir()
    folder.checkpoints.symlink_to(tmp_path / "elsewhere")
    folder.summary.symlink_to(tmp_path / "nothing")
    folder.log.mkdir()
    os.mkfifo(folder.curves)
    assert folder.wrong_kinds() == [
        f"{folder.checkpoints} must be a folder of the run, and is a link",
        f"{folder.log} must be a file of the run, and is a folder",
        f"{folder.summary} must be a file of the run, and is a link",
        f"{folder.curves} must be a file of the run, and is a device, a pipe or a socket",
    ]


def test_a_failure_is_appended_to_the_log_and_not_through_a_link(tmp_path):
    folder, request = RunFolder(tmp_path / "run"), Request({}, [], {})
    folder.write_failure(request, "no file \udcff", "Traceback")
    assert folder.log.read_text() == "FAILED no file \\udcff\nTraceback\n"
    assert folder.status == "failed"
    folder.log.unlink()
    folder.log.symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="it is a link"):
        folder.write_failure(request, "again")
    assert not (tmp_path / "victim").exists()


def test_unlock_without_a_lock_makes_nothing(tmp_path):
    RunFolder(tmp_path / "run").unlock()
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"^run_dir=.*file/run cannot be written: Not a directory$"):
        RunFolder(tmp_path / "file" / "run").lock()
    with pytest.raises(ConfigError, match=r"^run_dir=.*file cannot be written: File exists$"):
        RunFolder(tmp_path / "file").lock()


def test_config_and_overrides_come_back(tmp_path):
    config = {
        "seed": 0,
        "solver": {"rtol": 1e-3, "max_nfe": None},
        "note": "yes",
        "sizes": [1, 2.5],
        "name": "2026-11-21",
    }
    overrides = ["solver.rtol=1e-3", "run_dir='a b'"]
    folder = RunFolder(tmp_path)
    assert not folder.holds_run
    folder.write_request(Request(config, overrides, {"model": "mlp"}))
    assert folder.holds_run
    assert folder.read_config() == config
    assert folder.read_overrides() == overrides
    assert sorted(os.listdir(tmp_path / ".hydra")) == ["choices.yaml", "config.yaml", "origin.yaml", "overrides.yaml"]


def test_the_summary_goes_when_a_run_is_asked_for_more(tmp_path):
    """Killed on its way, the longer run must not pass for finished."""
    folder = RunFolder(tmp_path)
    folder.write_summary({"status": "finished"})
    folder.write_request(Request({"trainer": {"epochs": 3}}, [], {}))
    assert not folder.summary.exists()


def test_a_damaged_config_is_named(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_request(Request({"seed": 0}, [], {}))
    (tmp_path / ".hydra" / "config.yaml").write_text("")
    (tmp_path / ".hydra" / "overrides.yaml").write_text("seed: 0")
    with pytest.raises(ConfigError, match=r"config\.yaml is damaged: it holds no config$"):
        folder.read_config()
    with pytest.raises(ConfigError, match=r"overrides\.yaml is damaged: it holds no overrides$"):
        folder.read_overrides()


@pytest.mark.parametrize("name", ["", "checkpoints/last.pt"])
def test_the_folder_of_a_run_or_of_its_checkpoint(name, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(ConfigError, match=r"^no run at .*: .*run/\.hydra/config\.yaml does not exist$"):
        RunFolder.of(str(run / name))
    run.mkdir()
    RunFolder(run).write_request(Request({"seed": 0}, [], {}))
    assert RunFolder.of(str(run / name)).path == run


def test_needs_no_torch():
    code = "import sys, node_cli.runs.folder; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""What runs before anything is imported."""

import os
import subprocess
import sys

import pytest

from node_cli.cli import entry_points
from node_cli.training.launched import PARENT


@pytest.mark.parametrize("name", ["train", "evaluate", "predict", "audit", "report", "tune"])
def test_ctrl_c_while_a_command_imports_is_one_line(name, monkeypatch, capsys):
    def interrupted(module):
        raise KeyboardInterrupt

    monkeypatch.setattr(entry_points, "import_module", interrupted)
    with pytest.raises(SystemExit) as end:
        getattr(entry_points, name)()
    assert end.value.code == 130
    assert capsys.readouterr().err == f"node-{name.replace('evaluate', 'eval')}: interrupted\n"


def test_the_entry_points_import_nothing_of_others():
    code = "import sys; import node_cli.cli.entry_points; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"hydra", "yaml", "torch", "omegaconf"}.isdisjoint(loaded)


def test_a_process_whose_parent_is_gone_before_it_looks_ends_at_once():
    """A worker of a command that was killed while the worker imported: it is the child of another process now."""
    code = "import time; from node_cli.training.launched import end_with_parent; end_with_parent(); time.sleep(60)"
    told = {PARENT: str(os.getppid())}
    assert subprocess.run([sys.executable, "-c", code], env=os.environ | told, check=False).returncode == 1

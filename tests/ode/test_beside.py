"""A copy of the process compiles what comes next: it leaves files behind, nothing else, and is not waited for long."""

import os
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch._inductor.utils import fresh_cache

from node_cli.ode import odeint
from node_cli.ode.graphs.beside import beside as or_not

beside = partial(or_not, is_useless=lambda: False)


def require_no_child():
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_the_work_is_done_in_another_process_when_the_block_has_taken_as_long(tmp_path, capfd):
    def work():
        print("not shown")
        os.write(2, b"nor this")
        time.sleep(0.2)
        (tmp_path / "pid").write_text(str(os.getpid()))

    with beside(work):
        time.sleep(0.3)
    assert int((tmp_path / "pid").read_text()) != os.getpid()
    require_no_child()
    assert capfd.readouterr() == ("", "")


def test_work_that_hangs_or_fails_is_left_undone(capfd, tmp_path):
    def work():
        with subprocess.Popen(["sleep", "1000"]) as compiler:
            (tmp_path / "pid").write_text(str(compiler.pid))

    with beside(work):
        while not (tmp_path / "pid").exists() or not (pid := (tmp_path / "pid").read_text()):
            time.sleep(0.01)
    require_no_child()
    while Path("/proc", pid).exists():  # it ends too, at once
        time.sleep(0.01)
    with beside(lambda: 1 / 0):
        time.sleep(0.1)
    require_no_child()
    assert capfd.readouterr() == ("", "")


def test_work_ends_at_once_where_the_block_fails_or_shows_it_to_be_useless(tmp_path):
    with pytest.raises(ValueError, match="no such thing"), beside(lambda: time.sleep(1000)):
        raise ValueError("no such thing")
    require_no_child()
    with or_not(lambda: (time.sleep(0.5), (tmp_path / "done").touch()), is_useless=lambda: True):
        time.sleep(0.3)
    require_no_child()
    assert not (tmp_path / "done").exists()


def test_nothing_is_copied_without_a_second_processor_or_beside_a_gpu_in_use(monkeypatch, tmp_path):
    def work():
        (tmp_path / "done").touch()

    with monkeypatch.context() as patch, beside(None):
        patch.setattr(os, "fork", None)
        patch.setattr(os, "sched_getaffinity", lambda pid: {0})
        with beside(work):
            pass
        patch.undo()
        patch.setattr(os, "fork", None)
        patch.setattr(torch.cuda, "is_initialized", lambda: True)
        with beside(work):
            pass
    assert not (tmp_path / "done").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch's own
@pytest.mark.parametrize(("method", "gradient"), [("bosh3", "direct"), ("adaptive_heun", "checkpoint")])
def test_steps_backwards_are_in_the_cache_when_they_are_needed(method, gradient):
    """They are compiled beside those forwards, and found by what they are."""
    field, ts = Field(), torch.tensor([0.0, 0.01])
    with fresh_cache():
        counters.clear()
        for _ in range(2):  # the first solve may be one that tells how many steps there are
            ys = odeint(field, torch.ones(4, 3), ts, 1e-2, 1e-2, method=method, gradient=gradient, compile="solve")
            ys[-1].sum().backward()
    assert counters["inductor"]["fxgraph_cache_miss"] == 1
    assert counters["inductor"]["fxgraph_cache_hit"] == 1


class Field(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, t, y):
        return self.layer(y)

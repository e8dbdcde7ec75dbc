"""A copy of the process compiles what comes next: it leaves files behind, nothing else, and is not waited for long."""

import os
import signal
import subprocess
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch._inductor import config
from torch._inductor.utils import fresh_cache
from torch.fx.experimental.proxy_tensor import make_fx

from node_cli.ode import odeint
from node_cli.ode.graphs.beside import CACHE
from node_cli.ode.graphs.beside import beside as or_not
from node_cli.ode.graphs.lowering import machine_code

OTHERS = set[str]()


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr("node_cli.ode.graphs.beside.HEAD_START", 0.0)


def children():
    return set(Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split())


@pytest.fixture(autouse=True)
def others():
    """The processes that this one has started for other tests."""
    OTHERS.clear()
    OTHERS.update(children())


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def beside(cache):
    cache.mkdir()
    return partial(or_not, cache=str(cache), is_useless=lambda: False)


def require_nothing_left(cache):
    assert children() <= OTHERS
    assert not [path.name for path in cache.iterdir() if path.name.startswith("beside-")]


def compiled(name, text):
    place = Path(os.environ[CACHE], "ab", name)
    place.parent.mkdir(exist_ok=True)
    place.write_text(text)


def test_what_another_process_has_made_is_in_the_cache_when_the_block_has_taken_as_long(beside, cache, capfd):
    def work():
        print("not shown")
        os.write(2, b"nor this")
        compiled("new", str(os.getpid()))
        compiled("old", "other")
        time.sleep(0.2)

    (cache / "ab").mkdir()
    (cache / "ab" / "old").write_text("own")
    with beside(work):
        time.sleep(1)
    assert int((cache / "ab" / "new").read_text()) != os.getpid()
    assert (cache / "ab" / "old").read_text() == "own"
    require_nothing_left(cache)
    assert capfd.readouterr() == ("", "")


def test_work_that_hangs_or_fails_is_left_undone_and_nothing_of_it_is_in_the_cache(beside, cache, capfd, tmp_path):
    def work():
        compiled("half", "#")
        with subprocess.Popen(["sleep", "1000"]) as compiler:
            (tmp_path / "pid").write_text(str(compiler.pid))

    with beside(work):
        while not (tmp_path / "pid").exists() or not (pid := (tmp_path / "pid").read_text()):
            time.sleep(0.01)
    require_nothing_left(cache)
    while Path("/proc", pid).exists():  # it ends too, at once
        time.sleep(0.01)
    with beside(lambda: (compiled("half", "#"), 1 / 0)):
        time.sleep(0.2)
    require_nothing_left(cache)
    with beside(lambda: (signal.signal(signal.SIGTERM, signal.SIG_IGN), compiled("half", "#"), time.sleep(1000))):
        time.sleep(0.2)
    require_nothing_left(cache)
    assert not [path for path in cache.rglob("*") if path.is_file()]
    assert capfd.readouterr() == ("", "")


def test_work_ends_at_once_where_the_block_fails_or_shows_it_to_be_useless(beside, cache):
    for error in (ValueError, ChildProcessError, KeyboardInterrupt):
        with pytest.raises(error, match="no such thing"), beside(lambda: time.sleep(1000)):
            raise error("no such thing")
        require_nothing_left(cache)
    looks = []
    with beside(lambda: time.sleep(1000), is_useless=lambda: not looks.append(0)):
        time.sleep(0.3)
    require_nothing_left(cache)
    assert len(looks) == 1


def test_the_block_goes_on_where_no_copy_can_be_made_or_somebody_else_hears_of_its_end(beside, cache, monkeypatch):
    def refuse():
        raise BlockingIOError("no more processes")

    def fail_later():
        time.sleep(1)
        raise ValueError("no such thing")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fork", refuse)
        with beside(lambda: 0):
            pass
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        for seconds in (0, 1000):
            with beside(lambda seconds=seconds: time.sleep(seconds)):
                time.sleep(0.2)
        monkeypatch.setattr(os, "killpg", None)  # the number of one that has ended may be another's
        with pytest.raises(ValueError, match="no such thing"), beside(lambda: 0):
            fail_later()
    finally:
        signal.signal(signal.SIGCHLD, before)
    require_nothing_left(cache)
    with or_not(lambda: 0, str(cache / "nowhere"), is_useless=lambda: False):
        pass


def test_a_signal_runs_nothing_twice(beside, cache, tmp_path):
    """What this process does at a signal is not done by the copy too, however early it comes."""
    before = signal.signal(signal.SIGUSR1, lambda *_: (tmp_path / str(os.getpid())).touch())
    try:
        with beside(lambda: (os.kill(os.getpid(), signal.SIGUSR1), os.kill(os.getppid(), signal.SIGUSR1))):
            time.sleep(0.2)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [str(os.getpid())]


def test_nothing_is_copied_without_a_second_processor_or_beside_a_gpu_in_use(beside, monkeypatch):
    monkeypatch.setattr(os, "fork", None)
    with beside(None):
        pass
    with monkeypatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda pid: {0})
        with beside(lambda: 0):
            pass
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with beside(lambda: 0):
        pass


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch's own
def test_nothing_is_copied_that_would_not_be_found_again(monkeypatch):
    """Where the compiler keeps nothing."""
    monkeypatch.setattr(os, "fork", None)
    graph = make_fx(lambda x: [x + 1])(torch.zeros(3))
    for switch in ({"force_disable_caches": True}, {"fx_graph_cache": False}):
        with config.patch(switch):
            run, _ = machine_code(graph, is_cpu=True, meanwhile=lambda: 0)
        assert run([torch.ones(3)])[0].tolist() == [2, 2, 2]


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

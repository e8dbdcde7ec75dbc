import os

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _not_synced(monkeypatch):
    """What outlives a crash of the machine no test can see, and it is half the time that a checkpoint takes.

    `tests/test_files.py` holds that files are synced.
    """
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)

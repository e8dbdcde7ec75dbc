import pytest
import torch
from hurried import no_sync


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _not_synced(monkeypatch):
    no_sync(monkeypatch)

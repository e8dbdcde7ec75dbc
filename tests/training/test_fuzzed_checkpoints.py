"""A checkpoint that was changed in any way is refused, never loaded."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import mutations, same_every_time

from node_cli.training.checkpoint import CheckpointError, read_checkpoint, write_checkpoint


@settings(same_every_time, max_examples=300)
@given(data=st.data())
def test_every_change_is_noticed(tmp_path, data):
    path = tmp_path / "a.pt"
    if not path.exists():
        write_checkpoint(path, {"model": {"w": torch.arange(6.0)}, "state": {"step": 3}})
        (tmp_path / "sound").write_bytes(path.read_bytes())
    path.write_bytes(data.draw(mutations((tmp_path / "sound").read_bytes())))
    with pytest.raises(CheckpointError, match=r"a\.pt is damaged, or no checkpoint of node-cli"):
        read_checkpoint(path)


@settings(same_every_time, max_examples=100)
@given(content=st.binary(max_size=500))
def test_any_bytes(tmp_path, content):
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"a\.pt is damaged, or no checkpoint of node-cli"):
        read_checkpoint(tmp_path / "a.pt")

"""Imports whatever a command of ours may need; see `forked.py`."""

import os
import pkgutil
from importlib import import_module

import node_cli

OTHERS = ["torch._dynamo", "torch.distributed.run", "matplotlib.pyplot", "tensorboard.compat.proto.event_pb2"]

for name in (*OTHERS, *(module.name for module in pkgutil.walk_packages(node_cli.__path__, "node_cli."))):
    import_module(name)
assert len(os.listdir("/proc/self/task")) == 1, "what has threads cannot be forked"

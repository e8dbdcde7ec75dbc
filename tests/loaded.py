"""Imports whatever a command of ours may need; see `forked.py`."""

import builtins
import gc
import os
import pkgutil
from importlib import import_module

from hurried import no_drawing, no_sync

import node_cli

OTHERS = ["torch._dynamo", "torch.distributed.run", "matplotlib.pyplot", "tensorboard.compat.proto.event_pb2"]

for name in (*OTHERS, *(module.name for module in pkgutil.walk_packages(node_cli.__path__, "node_cli."))):
    import_module(name)
no_sync(builtins)
no_drawing(builtins)
gc.collect()
gc.freeze()  # no fork looks at it, and copies it, in a collection of its own
assert len(os.listdir("/proc/self/task")) == 1, "what has threads cannot be forked"

"""Solves on a machine whose compiler cannot be run, as a process for `forked.Command`."""

import logging

import torch
from torch._inductor import config

from node_cli.ode import odeint


def main():
    logging.basicConfig(format="%(message)s")
    config.cpp.cxx = (None, "/nonexistent/compiler")  # as CXX in the environment, which torch reads on import
    config.force_disable_caches = True
    y0, ts = torch.ones(2, dtype=torch.float64), torch.tensor([0.0, 1.0], dtype=torch.float64)
    hows = ("none", "solve", "solve", "step", "vector_field", "step")
    results = [odeint(lambda t, y: -y, y0, ts, compile=how)[-1, 0].item() for how in hows]
    assert len(set(results)) == 1, results

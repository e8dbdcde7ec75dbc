"""On every small dataset, probes agree with the exact trace within the error they print, and the integral is 1."""

import pytest
from hydra import initialize_config_dir

from benchmarks.density_checks import DATASETS, PLANE, checked, trained
from node_cli.config import config_dir
from node_cli.tasks import density_figures


@pytest.mark.parametrize("name", DATASETS)
def test_probes_agree_with_the_exact_trace_and_the_density_integrates_to_one(name, monkeypatch):
    monkeypatch.setattr(density_figures, "FINE_SIDE", 60)
    with initialize_config_dir(config_dir(), version_base="1.3"):
        off, error, mass = checked(trained(name, 60, 16))
    assert abs(off) < 3 * error
    assert (mass is None) == (name not in PLANE)
    if mass is not None:
        assert mass == pytest.approx(1, abs=0.01)

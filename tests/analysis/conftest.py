"""Runs of the commands in this process, with a solver that fails where it is told to."""

import pytest

TOUCHY = """
_target_: touchy.Touchy
on_failure: raise
fallback_steps: 4
num_steps: 2
limit: 99.0
"""


@pytest.fixture
def command(typed, tmp_path):
    """`command("node-train", "model.width=3")` in an empty working folder: exit status and all that was printed."""
    (tmp_path / "mine" / "solver").mkdir(parents=True)
    (tmp_path / "mine" / "solver" / "touchy.yaml").write_text(TOUCHY)
    common = ["--config-dir", "mine", "packages=[touchy]", "num_threads=1", "device=cpu"]

    def run(program, *words):
        result = typed(program, *common, *words)
        return result.status, result.out + result.err

    return run

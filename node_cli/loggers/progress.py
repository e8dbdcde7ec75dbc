"""The progress bar on a terminal."""

from __future__ import annotations

from collections.abc import MutableMapping
from types import TracebackType
from typing import Any

from tqdm import tqdm

FORMAT = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{numbers}]"
LEAST_WIDTH = 10  # columns of the bar itself


class _Bar(tqdm):
    """Shows as many numbers as leave room for the bar, the most wanted first."""

    def __init__(self, **settings: Any) -> None:
        self.numbers: dict[str, float] = {}
        self.batch_size = 0
        super().__init__(bar_format=FORMAT, dynamic_ncols=True, unit="step", **settings)

    @property
    def format_dict(self) -> MutableMapping[str, Any]:
        """What tqdm makes the line from."""
        known = super().format_dict
        known["numbers"] = ""
        rate = known["rate"] or (self.n - self.initial) / max(known["elapsed"], 1e-9)
        numbers = {**self.numbers, "samples/s": round(self.batch_size * rate)}
        for name, number in numbers.items() if self.numbers else ():
            longer = f"{known['numbers']}, {name}={self.format_num(number)}"
            without_bar = {**known, "bar_format": FORMAT.replace("{bar}", ""), "ncols": None, "numbers": longer}
            if known["ncols"] is not None and len(self.format_meter(**without_bar)) + LEAST_WIDTH > known["ncols"]:
                break
            known["numbers"] = longer
        return known


class Progress:
    """A bar over the steps of a whole run, on stderr; where that is no terminal, nothing.

    What else is written while it is shown goes above it, by `tqdm.external_write_mode`.

    Args:
        total_steps: steps of the whole run.
        initial: steps done already (a resumed run).
        enabled: False keeps it quiet on a terminal too.
    """

    def __init__(self, total_steps: int, initial: int, enabled: bool) -> None:
        # disable=None is tqdm's word for "unless it is a terminal".
        self._bar = _Bar(total=total_steps, initial=initial, disable=None if enabled else True)

    def update(self, batch_size: int, numbers: dict[str, float]) -> None:
        """Advance by one step over `batch_size` samples, and show `numbers` by their names, and samples/s."""
        self._bar.numbers, self._bar.batch_size = numbers, batch_size
        self._bar.update()

    def close(self) -> None:
        self._bar.close()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

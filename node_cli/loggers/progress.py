"""The progress bar on a terminal."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from tqdm import tqdm

FORMAT = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{numbers}]"
LEAST_WIDTH = 10  # columns of the bar itself


class Progress(tqdm):
    """A bar over the steps of a whole run, on stderr; nothing where that is no terminal, or unless `enabled`.

    `initial` steps are done already, in a resumed run. As many numbers are shown as leave room for the bar, the most
    wanted first. What else is written meanwhile goes above the bar, by `tqdm.external_write_mode`.
    """

    def __init__(self, total_steps: int, initial: int, enabled: bool) -> None:
        self.numbers: dict[str, float] = {}
        self.batch_size = 0
        disable = None if enabled else True  # None: unless it is a terminal
        super().__init__(
            total=total_steps, initial=initial, disable=disable, bar_format=FORMAT, dynamic_ncols=True, unit="step"
        )

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

    def advance(self, batch_size: int, numbers: dict[str, float]) -> None:
        """By one step over `batch_size` samples; `numbers` are shown by their names, and samples/s."""
        self.numbers, self.batch_size = numbers, batch_size
        self.update()

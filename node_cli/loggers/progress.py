"""The progress bar on a terminal."""

from __future__ import annotations

from types import TracebackType

from tqdm import tqdm


class Progress:
    """A bar over the steps of a whole run, on stderr; where that is no terminal, nothing.

    Args:
        total_steps: steps of the whole run.
        initial: steps done already (a resumed run).
        enabled: False keeps it quiet on a terminal too.
    """

    def __init__(self, total_steps: int, initial: int, enabled: bool) -> None:
        # disable=None is tqdm's word for "unless it is a terminal".
        self._bar = tqdm(
            total=total_steps,
            initial=initial,
            disable=None if enabled else True,
            unit="step",
            dynamic_ncols=True,
        )

    def update(self, batch_size: int, **numbers: float) -> None:
        """Advance by one step over `batch_size` samples, and show `numbers` (loss=, accuracy=, nfe=) and images/s."""
        steps_per_second = self._bar.format_dict["rate"] or 0.0
        shown = {**numbers, "images/s": round(batch_size * steps_per_second)}
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update()

    def close(self) -> None:
        self._bar.close()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

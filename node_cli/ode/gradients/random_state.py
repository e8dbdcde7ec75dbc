"""Whether a vector field draws random numbers: a step that is run again would then be another one."""

from __future__ import annotations

import torch


def refuse_random(is_random: bool) -> None:
    """Raises ValueError for a vector field that draws random numbers, where its steps are run again."""
    if is_random:
        raise ValueError(
            "the vector field draws random numbers (dropout?), so a step that is run again (gradient=checkpoint, "
            "solver.compile=step, a second backward pass or derivative) would be another one: take gradient=direct "
            "and solver.compile=none, or take the randomness out"
        )


class RandomState:
    """The state of the generators now."""

    def __init__(self, device_type: str) -> None:
        self._device_type = device_type
        self._was = self._now()

    def was_drawn_from(self) -> bool:
        """Whether a random number has been drawn since."""
        return any(not torch.equal(was, now) for was, now in zip(self._was, self._now(), strict=True))

    def _now(self) -> list[torch.Tensor]:
        states = [torch.get_rng_state()]
        return [*states, torch.cuda.get_rng_state()] if self._device_type == "cuda" else states

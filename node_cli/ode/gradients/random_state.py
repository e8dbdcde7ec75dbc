"""Whether a vector field draws random numbers: a step that is run again would then be another one."""

from __future__ import annotations

import torch


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

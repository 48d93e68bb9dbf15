"""Orders: commands to a suite that hold, or that its warden has not carried out yet. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Orders:
    """What was ordered of a suite since its warden started; removals of runs also from before."""

    paused: bool | None = None
    """True: no further run is to start; False: they are to start again; None: no such order."""
    stopped: bool = False
    removed: Mapping[str, str] = field(default_factory=dict)
    """Run id -> `skip`, `cancel` or `prune`; of a run that has ended it is what ended it."""


NO_ORDERS: Final = Orders()

"""States of a run at earlier moments, reduced from its journal: what a cursor scrubs through.

Reads files and so runs in a thread; the result is frozen.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

    from engines.protocol import Entry
    from workbench.suites.state import RunState

MAX_MOMENTS: Final = 600
"""Kept states; beyond it every second one is dropped."""


@dataclass(frozen=True, slots=True)
class RunHistory:
    """States of the last attempt by rising t, without their curves."""

    run_id: str
    states: tuple[RunState, ...] = ()

    @property
    def end(self) -> float:
        """t of the last state."""
        return self.states[-1].t if self.states else 0.0

    def find_state(self, moment: float) -> RunState | None:
        """The state at a moment in seconds of the attempt; before the first one, the first."""
        at = bisect_right(self.states, moment, key=lambda state: state.t)
        return self.states[max(0, at - 1)] if self.states else None


def read_history(
    run: Path, run_id: str, give_way: Callable[[], object] | None = None
) -> RunHistory:
    """States of a run by the folder that has its journal. `give_way`: see `Tail.iterate`.

    Raises:
        OSError: the journal cannot be read.
    """
    from workbench.suites.journal import Tail

    return RunHistory(run_id, tuple(thin_states(Tail(run / "events.jsonl").iterate(give_way))))


def thin_states(entries: Iterable[Entry]) -> list[RunState]:
    """At most `MAX_MOMENTS` states of the last attempt, evenly over t, and the last one."""
    from engines import messages
    from workbench.suites.state import RunState, advance

    state, kept, gap = RunState(), list[RunState](), 0.0
    for entry in entries:
        # Curves are of no use here, and growing them is most of the work.
        state = replace(advance(state, entry), curves={})
        if isinstance(entry.msg, messages.Attempt):
            kept, gap = [], 0.0
        if not kept or state.t - kept[-1].t >= gap:
            kept.append(state)
        if len(kept) > MAX_MOMENTS:
            kept = kept[::2]
            gap = (kept[-1].t - kept[0].t) / (MAX_MOMENTS / 2)
    if kept and kept[-1] is not state:
        kept.append(state)
    return kept

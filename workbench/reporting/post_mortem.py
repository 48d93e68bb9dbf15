"""What is left of a run that did not complete: its last events, its memory, its last words.

Read from the journal and engine.log of the run folder, which are there after every ending. Its own
module, since it looks at one attempt entry by entry; everything else looks at what they add up to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from engines import protocol
from engines.protocol import Entry
from results.text import formats
from workbench.processes.engine_process import tail_log
from workbench.suites.journal import Tail

EVENTS = 12
"""The last so many events, samples left out: they come twice a second and say one thing."""

LOG_LINES = 20


def lines(run: Path, attempt: int) -> Iterator[str]:
    """The black box of one attempt as text, not cleaned yet."""
    tail = Tail(run / "events.jsonl")
    entries = _of_attempt(tail.read_all(), attempt)
    yield f"last events of attempt {attempt}:"
    told = [e for e in entries if not isinstance(e.msg, protocol.Sample)]
    for entry in told[-EVENTS:]:
        yield f"    {_event(entry)}"
    if not entries:
        yield "    none: the journal is gone or holds nothing of it"
    if tail.bad or tail.oversize:
        yield f"    {tail.bad + tail.oversize} lines of the journal cannot be read"
    yield "memory at last:"
    yield f"    {_memory(entries)}"
    for entry in told:
        if isinstance(entry.msg, protocol.Failed) and entry.msg.traceback:
            yield "traceback:"
            yield from (f"    {line}" for line in entry.msg.traceback.rstrip().splitlines())
    yield "end of engine.log:"
    log = tail_log(run / "engine.log", 16_384).splitlines()[-LOG_LINES:]
    yield from (f"    {line}" for line in log or ["(empty)"])


def _of_attempt(entries: Sequence[Entry], number: int) -> list[Entry]:
    found: list[Entry] = []
    inside = True  # a run that never started has entries, but no attempt
    for entry in entries:
        if isinstance(entry.msg, protocol.Attempt):
            inside = entry.msg.number == number
            found = [] if inside else found
        if inside:
            found.append(entry)
    return found


def _event(entry: Entry) -> str:
    """Time, source and kind, then whatever the message says that is short."""
    said = entry.msg.model_dump(mode="json", exclude_defaults=True)
    kind, t = getattr(entry.msg, "kind", "?"), said.pop("t", 0.0)
    said.pop("kind", None)
    parts = [
        f"{name}={formats.number(value) if isinstance(value, float) else value}"
        for name, value in said.items()
        if isinstance(value, str | int | float) and name != "traceback"
    ]
    return f"{t:.2f} s  {entry.src:<6} {kind:<9} {' '.join(parts)}"[:400]


def _memory(entries: Sequence[Entry]) -> str:
    samples = [e.msg for e in entries if isinstance(e.msg, protocol.Sample)]
    if not samples:
        return "no sample: the run ended before the first one"
    last = samples[-1]
    sizes = {"main": last.rss_main, "peak": last.rss_main_peak, "tree": last.rss_tree}
    parts = [f"RSS {name} {formats.size(size)}" for name, size in sizes.items() if size]
    for gpu in last.gpus:
        used = formats.size(gpu.used) if gpu.used is not None else gpu.reasons.get("used", "n/a")
        of = f" of {formats.size(gpu.total)}" if gpu.total else ""
        parts.append(f"GPU {gpu.index} {used}{of}")
    if not last.gpus:
        parts.append(f"no GPU ({last.gpu_reason})")
    return f"{', '.join(parts)}; {last.processes} processes, {last.t:.2f} s after the start"

"""Post-mortem of a run that did not complete: last events, memory, traceback, end of engine.log.

Read from the journal and engine.log of the run folder, entry by entry of one attempt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from engines import messages
from engines.protocol import Entry
from results.text import formats
from workbench.processes.engine_process import tail_log
from workbench.suites.journal import Tail

MAX_EVENTS = 12
"""Number of last events shown; samples (two a second) are left out."""

MAX_LOG_LINES = 20


def post_mortem_lines(run: Path, attempt: int) -> Iterator[str]:
    """Post-mortem of one attempt as lines of text, not sanitized."""
    tail = Tail(run / "events.jsonl")
    entries = _select_attempt(tail.read_all(), attempt)
    yield f"last events of attempt {attempt}:"
    events = [e for e in entries if not isinstance(e.msg, messages.Sample)]
    for entry in events[-MAX_EVENTS:]:
        yield f"    {_format_event(entry)}"
    if not entries:
        yield "    none: the journal is gone or holds nothing of it"
    if tail.bad or tail.oversize:
        yield f"    {tail.bad + tail.oversize} lines of the journal cannot be read"
    yield "memory at last:"
    yield f"    {_format_memory(entries)}"
    for entry in events:
        if isinstance(entry.msg, messages.Failed) and entry.msg.traceback:
            yield "traceback:"
            yield from (f"    {line}" for line in entry.msg.traceback.rstrip().splitlines())
    yield "end of engine.log:"
    log = tail_log(run / "engine.log", 16_384).splitlines()[-MAX_LOG_LINES:]
    yield from (f"    {line}" for line in log or ["(empty)"])


def _select_attempt(entries: Sequence[Entry], number: int) -> list[Entry]:
    selected: list[Entry] = []
    inside = True  # a run that never started has entries, but no attempt
    for entry in entries:
        if isinstance(entry.msg, messages.Attempt):
            inside = entry.msg.number == number
            selected = [] if inside else selected
        if inside:
            selected.append(entry)
    return selected


def _format_event(entry: Entry) -> str:
    """Time, source, kind and all scalar fields of an entry, at most 400 characters."""
    fields = entry.msg.model_dump(mode="json", exclude_defaults=True)
    kind, t = getattr(entry.msg, "kind", "?"), fields.pop("t", 0.0)
    fields.pop("kind", None)
    parts = [
        f"{name}={formats.number(value) if isinstance(value, float) else value}"
        for name, value in fields.items()
        if isinstance(value, str | int | float) and name != "traceback"
    ]
    return f"{t:.2f} s  {entry.src:<6} {kind:<9} {' '.join(parts)}"[:400]


def _format_memory(entries: Sequence[Entry]) -> str:
    samples = [e.msg for e in entries if isinstance(e.msg, messages.Sample)]
    if not samples:
        return "no sample: the run ended before the first one"
    last = samples[-1]
    sizes = {"main": last.rss_main, "peak": last.rss_main_peak, "tree": last.rss_tree}
    parts = [f"RSS {name} {formats.size(size)}" for name, size in sizes.items() if size]
    for gpu in last.gpus:
        used = formats.size(gpu.used) if gpu.used is not None else gpu.reasons.get("used", "n/a")
        total = f" of {formats.size(gpu.total)}" if gpu.total else ""
        parts.append(f"GPU {gpu.index} {used}{total}")
    if not last.gpus:
        parts.append(f"no GPU ({last.gpu_reason})")
    return f"{', '.join(parts)}; {last.processes} processes, {last.t:.2f} s after the start"

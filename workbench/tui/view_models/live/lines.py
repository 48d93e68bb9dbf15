"""Gauges, phases, parts of a step, events and experiments of a run as lines of text. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from results.text.sanitize import clean_line
from workbench.output_language import translate
from workbench.suites import quantities as q
from workbench.tui.view_models.cells import GridCell, GridColumn, GridRow

if TYPE_CHECKING:
    from workbench.suites.state import RunState

EXPERIMENTS: Final = (
    GridColumn("code", "", 16, rank=0),
    GridColumn("change", "", 30, rank=1),
    GridColumn("why", "", 30, grow=60, rank=0),
)
PART_SIGNS: Final = {
    "data_wait": ("░", "data wait"), "transfer": ("▁", "transfer"), "forward": ("█", "forward"),
    "backward": ("▓", "backward"), "optimizer": ("▒", "optimizer"),
}  # fmt: skip
"""Part of a step -> its sign in the bar, and its name."""
REST: Final = ("·", "rest")
BAR_CELLS: Final = 20
PHASE_MARK: Final = " ▏ "
NAMED_SHARE: Final = 0.01
"""A part below is in the bar, but not named."""


def gauge_line(run: RunState) -> str:
    """CPU, RSS, VRAM, GPU use, power, temperature and throttling as bars with their limits."""
    sample = run.sample
    if sample is None:
        return ""
    cores, ram = run.environment.get("cores"), run.environment.get("ram_bytes")
    parts = []
    if sample.cpu_percent is not None:
        share = sample.cpu_percent / (100 * cores) if cores else None
        of = f" of {cores} cores" if cores else ""
        parts.append(f"cpu {_bar(share)}{sample.cpu_percent:.0f} %{of}")
    if sample.rss_tree is not None:
        share = sample.rss_tree / ram if ram else None
        of = f" of {q.size(ram)}" if ram else ""
        parts.append(f"RSS {_bar(share)}{q.size(sample.rss_tree)}{of}")
    for gpu in sample.gpus:
        if gpu.used is not None and gpu.total:
            sizes = f"{q.size(gpu.used)} of {q.size(gpu.total)}"
            parts.append(f"VRAM {gpu.index} {_bar(gpu.used / gpu.total)}{sizes}")
        if gpu.utilisation is not None:
            parts.append(f"use {_bar(gpu.utilisation / 100)}{gpu.utilisation:.0f} %")
        if gpu.power is not None:
            limit = f" of {gpu.power_limit:.0f}" if gpu.power_limit else ""
            parts.append(f"{gpu.power:.0f}{limit} W")
        if gpu.temperature is not None:
            parts.append(f"{gpu.temperature:.0f} °C")
        if gpu.throttle:
            parts.append(f"held down: {clean_line(', '.join(gpu.throttle), 60)}")
    return "   ".join(parts)


def _bar(share: float | None, cells: int = 10) -> str:
    if share is None:
        return ""
    full = round(max(0.0, min(1.0, share)) * cells)
    return f"▕{'█' * full}{'░' * (cells - full)}▏ "


def anatomy_line(run: RunState) -> str:
    """`step 551 ms ▕██▓▓▓▓▒▏ █ forward 31 % …`: the timed steps by what they consist of.

    Parts of the device may overlap with the host's wait for data; then the bar is of their sum.
    """
    if len(run.timed_parts) < 2 or not run.timed_steps or run.timed_seconds <= 0:
        return ""
    seconds = {name: run.timed_parts[name] for name in PART_SIGNS if name in run.timed_parts}
    total = max(run.timed_seconds, sum(seconds.values()))
    rest = total - sum(seconds.values())
    parts = [(*PART_SIGNS[name], part) for name, part in seconds.items()]
    parts += [(*REST, rest)] if rest > 0 else []
    bar, end = "", 0.0
    for sign, _, part in parts:
        end += part
        bar += sign * (round(end / total * BAR_CELLS) - len(bar))
    named = [part for part in parts if part[2] >= NAMED_SHARE * total]
    shares = "  ".join(f"{sign} {name} {q.share(part / total)}" for sign, name, part in named)
    return f"step {q.duration(run.step_seconds)} ▕{bar}▏ {shares}"


def phase_line(run: RunState, width: int | None = None) -> str:
    """`import 4 s ▏ load 7 s ▏ train 1:04 …`: the phases of the attempt in their order.

    Of more than `width` characters the last ones, behind `… ▏`.
    """
    parts: list[tuple[str, float]] = []
    for span in run.phases:
        seconds = max(0.0, (run.t if span.end is None else span.end) - span.start)
        if parts and parts[-1][0] == span.name:
            seconds += parts.pop()[1]
        parts.append((span.name, seconds))
    texts = [f"{name} {_short_time(seconds)}" for name, seconds in parts]
    if run.status == "running" and texts:
        texts[-1] += " …"
    line = PHASE_MARK.join(texts)
    while width is not None and len(line) > width and len(texts) > 1:
        del texts[0]
        line = PHASE_MARK.join(["…", *texts])
    return line


def event_lines(run: RunState) -> tuple[str, ...]:
    """Phases, epochs and notices with their times, for a run whose libraries print nothing."""
    events = [(span.start, f"{span.name} {clean_line(span.detail, 200)}") for span in run.phases]
    for epoch in run.epochs:
        metrics = {"loss": epoch.loss, **epoch.validation}
        values = [f"{name} {q.number(v)}" for name, v in metrics.items() if v is not None]
        events.append((epoch.t, " · ".join([f"epoch {epoch.epoch}", *values])))
    events += [(notice.t, f"! {clean_line(translate(notice.text), 300)}") for notice in run.notices]
    return tuple(f"{q.clock(t):>8} {text.rstrip()}" for t, text in sorted(events))


def _short_time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 60 else q.clock(seconds)


def experiment_row(proposal: Mapping[str, Any]) -> GridRow:
    """A row of `workbench experiment RUN --json`: what it changes, and why or why not."""
    codes, problem = ", ".join(proposal["asked_by"]), str(proposal["problem"])
    reason = f"! {codes}" if codes else str(proposal["answers"])
    tone = "warn" if codes else ""
    if problem:
        reason, tone = f"no: {problem}", "dim"
    code, change = str(proposal["experiment"]), str(proposal["change"])
    return (
        GridCell(code, tone), GridCell(clean_line(change, 60), tone),
        GridCell(clean_line(reason, 200), tone),
    )  # fmt: skip

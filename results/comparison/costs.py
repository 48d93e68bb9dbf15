"""Costs by which runs are compared, and how they are read from a record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from results.records import epoch_time
from results.records.schema import Reading, RunRecord

COSTS: Final[dict[str, Callable[[RunRecord], Reading]]] = {
    "epoch": epoch_time.training_reading,
    "step": lambda record: record.timing.step_median,
    "wall": lambda record: record.timing.end_to_end_seconds,
    "rss": lambda record: record.memory.rss_main_peak,
    "vram": lambda record: record.memory.vram_process_peak,
}
"""Costs in seconds and bytes; less is better."""

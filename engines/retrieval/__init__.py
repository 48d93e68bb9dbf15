"""Retrieval: a dual encoder over (question text + image) -> (passage text + passage image).

Light: declares what the engine is. The computing modules are imported by `run`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from engines.emitter import Emitter
from engines.protocol import RunSpec, Task
from engines.retrieval.params import Params

__all__ = ["NEEDS", "SUMMARY", "TASKS", "Params", "run"]

SUMMARY: Final = "Retrieval: finds the passages that answer a question about an image"
TASKS: Final[tuple[Task, ...]] = ("train", "evaluate", "probe")
NEEDS: Final[tuple[str, ...]] = (
    "question", "image_path", "passage_id", "passage_text", "passage_image_path",
)  # fmt: skip


def run(spec: RunSpec, emit: Emitter, run_dir: Path) -> None:
    """Train and evaluate, or evaluate, as the spec says."""
    from engines.retrieval import work

    work.run(spec, emit, run_dir)

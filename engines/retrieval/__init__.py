"""Retrieval: a dual encoder over (question text + image) -> (passage text + passage image).

Light: declares what the engine is. The computing modules are imported by `run`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from engines.emitter import Emitter
from engines.protocol import Oom, RunSpec, Task
from engines.retrieval.params import Params

__all__ = ["FORM", "NEEDS", "SUMMARY", "TASKS", "Params", "run", "smaller"]

SUMMARY: Final = "Retrieval: finds the passages that answer a question about an image"
TASKS: Final[tuple[Task, ...]] = ("train", "evaluate", "probe")
FORM: Final = "passages"
NEEDS: Final[tuple[str, ...]] = (
    "question", "image_path", "passage_id", "passage_text", "passage_image_path",
)  # fmt: skip


def run(spec: RunSpec, emit: Emitter, run_dir: Path) -> None:
    """Train and evaluate, or evaluate, as the spec says."""
    from engines.retrieval import work

    work.run(spec, emit, run_dir)


def smaller(params: Mapping[str, Any], phase: str) -> Oom | None:
    """Less memory and the same result: training encodes its batch in smaller chunks (GradCache).

    A smaller batch would be another objective, since the batch holds the negatives. Evaluation
    encodes fewer items at once. None: there is nothing left to halve.
    """
    training = phase in ("compile", "warmup", "train")
    name = "grad_cache_chunk" if training else "evaluate_batch"
    before = int(params.get(name) or params.get("batch") or 1)
    if before < 2:
        return None
    return Oom(step=0, before=before, after=before // 2, params={name: before // 2})

"""Retrieval engine: a dual encoder of (question text + image) and (passage text + image).

Declares the members of `catalog.Engine`; `run` imports the computing modules.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from engines.emitter import Emitter
from engines.messages import PhaseName
from engines.process_memory import collection_paused
from engines.protocol import RunSpec, Task
from engines.retrieval.params import ARCHITECTURE_PARAMS as ARCHITECTURE_PARAMS
from engines.retrieval.params import Params as Params

SUMMARY: Final = "Retrieval: finds the passages that answer a question about an image"
TASKS: Final[tuple[Task, ...]] = ("train", "evaluate", "probe")
RANK_TASKS: Final[tuple[Task, ...]] = ("train", "probe")
FORM: Final = "passages"
NEEDS: Final[tuple[str, ...]] = (
    "question", "image_path", "passage_id", "passage_text", "passage_image_path",
)  # fmt: skip
OOM_SETTINGS: Final[Mapping[PhaseName, str]] = {
    **dict.fromkeys(("compile", "warmup", "train"), "grad_cache_chunk"),
    **dict.fromkeys(("eval", "encode"), "eval_batch_size"),
}
"""Training encodes its batch in smaller chunks (GradCache): a smaller batch would be another
objective, since the batch holds the negatives. A search's memory does not depend on the batch."""


def run(spec: RunSpec, emit: Emitter, run_dir: Path) -> None:
    """Train and evaluate, or evaluate, as the spec says."""
    with collection_paused("torch"):
        from engines.retrieval.tasks import RetrievalTask

    RetrievalTask(spec, emit, run_dir).run()

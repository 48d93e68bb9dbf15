"""VQA: four-choice questions about pictures, answered by a vision-language model with LoRA.

Imports no torch: this module declares the engine; `run` imports the modules that compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from engines.emitter import Emitter
from engines.messages import PhaseName
from engines.process_memory import collection_paused
from engines.protocol import RunSpec, Task
from engines.vqa.params import ARCHITECTURE_PARAMS as ARCHITECTURE_PARAMS
from engines.vqa.params import Params as Params

SUMMARY: Final = "VQA: answers four-choice questions about pictures"
TASKS: Final[tuple[Task, ...]] = ("train", "evaluate", "infer", "ensemble", "probe")
RANK_TASKS: Final[tuple[Task, ...]] = ("train", "evaluate", "infer", "probe")
FORM: Final = "choices"
NEEDS: Final[tuple[str, ...]] = ("image_path", "answer")
OOM_SETTINGS: Final[Mapping[PhaseName, str]] = {
    **dict.fromkeys(("compile", "warmup", "train"), "batch"),
    **dict.fromkeys(("eval", "generate"), "eval_batch_size"),
}


def run(spec: RunSpec, emit: Emitter, run_dir: Path) -> None:
    """Carry out the task of the spec: train and answer, only answer, or combine folds."""
    if spec.task == "ensemble":
        from engines.vqa.ensemble import ensemble

        ensemble.run(spec, emit, run_dir)
        return
    with collection_paused("torch"):
        from engines.vqa.tasks import VqaTask

    VqaTask(spec, emit, run_dir).run()

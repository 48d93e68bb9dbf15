"""Captioning: a frozen vision tower, a trained projector, and a language model with LoRA.

Imports no torch: this module declares the engine; `run` imports the modules that compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from engines.captioning.params import ARCHITECTURE_PARAMS as ARCHITECTURE_PARAMS
from engines.captioning.params import Params as Params
from engines.emitter import Emitter
from engines.messages import PhaseName
from engines.process_memory import collection_paused
from engines.protocol import RunSpec, Task

SUMMARY: Final = "Captioning: says what a picture or a video shows"
TASKS: Final[tuple[Task, ...]] = ("train", "evaluate", "infer", "probe")
RANK_TASKS: Final[tuple[Task, ...]] = ("train", "probe")
FORM: Final = "captions"
NEEDS: Final[tuple[str, ...]] = ("image_path", "answer")
OOM_SETTINGS: Final[Mapping[PhaseName, str]] = {
    "cache": "vision_batch",
    **dict.fromkeys(("compile", "warmup", "train"), "batch"),
    **dict.fromkeys(("eval", "generate"), "eval_batch_size"),
}


def run(spec: RunSpec, emit: Emitter, run_dir: Path) -> None:
    """Carry out the task of the spec: train and evaluate, evaluate, or only caption."""
    with collection_paused("torch"):
        from engines.captioning.tasks import CaptioningTask

    CaptioningTask(spec, emit, run_dir).run()

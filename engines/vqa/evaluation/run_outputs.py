"""What a finished split leaves in the run's folder: answers, tables for reports, a submission.

Apart from training, inference and ensemble, which all end with it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from datasets_mm.building.build import Subset
from engines.emitter import Emitter, EngineError, artifact
from engines.protocol import Task
from engines.vqa.data import questions
from engines.vqa.data.questions import Sample
from engines.vqa.evaluation import metrics, predictions, submission
from engines.vqa.evaluation.predictions import Answer
from engines.vqa.evaluation.submission import SubmissionError
from engines.vqa.params import Params

FILE: Final = "submission.csv"
"""Of one fold among several: the name that is asked for is that of their ensemble's."""


def file_name(task: Task, params: Params) -> str:
    """Name of the submission of a run that is no ensemble."""
    return FILE if task == "train" and params.folds else params.submission_file


def leave(emit: Emitter, run_dir: Path, split: str, answers: Sequence[Answer]) -> None:
    """Write a split's answers as a whole, with its tables, and announce them."""
    path = run_dir / "predictions" / f"{split}.jsonl"
    predictions.replace(path, b"".join(answer.line() for answer in answers))
    announce(emit, run_dir, split, answers)


def announce(emit: Emitter, run_dir: Path, split: str, answers: Sequence[Answer]) -> None:
    """Announce a split's answers, which are written, and write its tables."""
    path = run_dir / "predictions" / f"{split}.jsonl"
    emit.send(artifact(path, run_dir))
    found = metrics.tables(answers)
    if found is None:
        return
    said = {
        "confusion": found.confusion.tolist(),
        "reliability": [
            {**one._asdict(), **dict.fromkeys(("confidence", "accuracy"), None)}
            if math.isnan(one.confidence) else one._asdict()
            for one in found.reliability
        ],
        "kinds": {name: list(counts) for name, counts in found.kinds.items()},
    }  # fmt: skip
    predictions.replace(path.with_suffix(".tables.json"), json.dumps(said).encode())


def deliver(
    emit: Emitter, path: Path, answers: Sequence[Answer], file: str, subset: Subset
) -> None:
    """Write the submission, directly in the run's folder, and announce it.

    `file`: path of a sample_submission.csv; empty: the subset's own sample, or, where it has none,
    columns id and answer in the order of the data.

    Raises:
        EngineError: it would be no valid submission; then none is written.
    """
    letters = {answer.id: answer.letter for answer in answers}
    try:
        sample = submission.read_sample(Path(file)) if file else questions.sample(subset)
        if sample is None:
            emit.notice("submission", f"{subset.name} has no sample; columns are id and answer")
            sample = Sample(("id", "answer"), tuple(letters))
        submission.write(path, letters, sample)
    except SubmissionError as error:
        raise EngineError(f"{path.name} was not written: {error}") from None
    emit.send(artifact(path, path.parent, "submission"))

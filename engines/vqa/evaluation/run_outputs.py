"""Output files of a finished split: answers, tables for reports, submission."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from datasets_mm.building.build import Subset
from engines.emitter import Emitter, EngineError, describe_artifact
from engines.protocol import Task
from engines.vqa.data import questions
from engines.vqa.data.questions import SubmissionTemplate
from engines.vqa.evaluation import metrics, predictions, submission
from engines.vqa.evaluation.predictions import Answer
from engines.vqa.evaluation.submission import SubmissionError
from engines.vqa.params import Params

FILE: Final = "submission.csv"
"""Of one fold among several: the name that is asked for is that of their ensemble's."""


def file_name(task: Task, params: Params) -> str:
    """Name of the submission of a run that is no ensemble."""
    return FILE if task == "train" and params.folds else params.submission_file


def write_outputs(emit: Emitter, run_dir: Path, split: str, answers: Sequence[Answer]) -> None:
    """Write the answers and tables of a split, and announce them."""
    path = run_dir / "predictions" / f"{split}.jsonl"
    predictions.write_durable(path, b"".join(answer.line() for answer in answers))
    announce_outputs(emit, run_dir, split, answers)


def announce_outputs(emit: Emitter, run_dir: Path, split: str, answers: Sequence[Answer]) -> None:
    """Announce the written answers of a split, and write its tables."""
    path = run_dir / "predictions" / f"{split}.jsonl"
    emit.send(describe_artifact(path, run_dir))
    tables = metrics.tables(answers)
    if tables is None:
        return
    content = {
        "confusion": tables.confusion.tolist(),
        "reliability": [
            {**row._asdict(), **dict.fromkeys(("confidence", "accuracy"), None)}
            if math.isnan(row.confidence) else row._asdict()
            for row in tables.reliability
        ],
        "kinds": {name: list(counts) for name, counts in tables.kinds.items()},
    }  # fmt: skip
    predictions.write_durable(path.with_suffix(".tables.json"), json.dumps(content).encode())


def write_submission(
    emit: Emitter, path: Path, answers: Sequence[Answer], sample_path: str, subset: Subset
) -> None:
    """Write the submission, directly in the run's folder, and announce it.

    `sample_path`: path of a sample_submission.csv; empty: the sample of the subset, or, where it
    has none, columns id and answer in the order of the data.

    Raises:
        EngineError: the submission would be invalid; none is written.
    """
    letters = {answer.id: answer.letter for answer in answers}
    try:
        sample = (
            submission.read_sample(Path(sample_path))
            if sample_path
            else questions.read_sample_submission(subset)
        )
        if sample is None:
            emit.notice("submission", f"{subset.name} has no sample; columns are id and answer")
            sample = SubmissionTemplate(("id", "answer"), tuple(letters))
        submission.write_csv(path, letters, sample)
    except SubmissionError as error:
        raise EngineError(f"{path.name} was not written: {error}") from None
    emit.send(describe_artifact(path, path.parent, "submission"))

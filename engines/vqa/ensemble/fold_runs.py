"""Fold runs of the suite: their spec, messages and verified answers.

A file counts only if its hash is the one that its run announced. Only the warden writes journals,
so a file that was changed afterwards is detected.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from engines import messages, protocol
from engines.emitter import EngineError
from engines.messages import Artifact
from engines.protocol import RunSpec
from engines.vqa.evaluation import predictions
from engines.vqa.evaluation.predictions import Answer

VALIDATION = "validation"
"""Split of the rows that a run holds out of training."""


@dataclass
class FoldRun:
    """A completed run of the same suite."""

    folder: Path
    spec: RunSpec
    plan: messages.Plan | None = None
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    """Artifacts of its last attempt, by path."""

    @property
    def splits(self) -> list[str]:
        """Names of the splits that it answered."""
        paths = [Path(a.path) for a in self.artifacts.values() if a.role == "predictions"]
        return [path.stem for path in paths]

    def answers(self, split: str) -> list[Answer]:
        """Its verified answers to a split.

        Raises:
            EngineError: it has none, or the file is not the one that it announced.
        """
        name = f"predictions/{split}.jsonl"
        if name not in self.artifacts:
            raise EngineError(
                f"{self.folder.name}: has no answers to '{split}'; run it again with the settings "
                "of the others"
            )
        path = self.folder / name
        try:
            data = path.read_bytes()
        except OSError as error:
            raise EngineError(f"{path}: {error.strerror}; run {self.folder.name} again") from None
        if hashlib.sha256(data).hexdigest() != self.artifacts[name].sha256:
            raise EngineError(
                f"{path}: is not the file that its run announced; run {self.folder.name} again"
            )
        answers, dropped = predictions.read_answers(path)
        if dropped:
            raise EngineError(f"{path}: {dropped} lines are no answers; run it again")
        return answers


def read_fold_run(runs: Path, run_id: str) -> FoldRun:
    """Read a run from its spec and its journal.

    Raises:
        EngineError: the suite has no such run.
    """
    folder = runs / run_id
    try:
        spec = RunSpec.model_validate_json((folder / "spec.json").read_bytes())
        lines = (folder / "events.jsonl").read_bytes().splitlines()
    except (OSError, ValueError):
        raise EngineError(f"{folder}: is no run of this suite whose answers can be read") from None
    run = FoldRun(folder, spec)
    for line in lines:
        if not any(f'"kind":"{kind}"'.encode() in line for kind in ("attempt", "plan", "artifact")):
            continue
        try:
            message = protocol.decode_entry(line).msg
        except ValueError:
            continue
        if isinstance(message, messages.Attempt):
            run = FoldRun(folder, spec)
        elif isinstance(message, messages.Plan):
            run.plan = message
        elif isinstance(message, Artifact):
            run.artifacts[message.path] = message
    return run

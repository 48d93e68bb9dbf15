"""predictions/<split>.jsonl: one line an answer, appended as they come, never half a line twice.

Apart from the inference that fills them, because the ensemble reads the files of other runs, and a
report reads the ensemble's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from engines.vqa.data.questions import LETTERS
from engines.vqa.evaluation.calibration import Numbers, Places

Four = tuple[float, float, float, float]


class Answer(BaseModel):
    """What was answered to one question. Probabilities are in the record's own order of options."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    letter: str
    """The most probable of all views together."""
    probabilities: Four
    truth: str = ""
    """Empty: not known."""
    kind: str = ""
    """Type of the question."""
    medium: str = ""
    """The picture, as the data names it."""
    question: str = ""
    options: tuple[str, ...] = ()
    plain: Four | None = None
    """Of the plain view alone, where there were others."""
    votes: tuple[int, ...] | None = None
    """Views that answered each option."""
    blank: Four | None = None
    """Of the plain view with a blanked picture."""
    generated: str | None = None
    """What the model wrote; None: it was not asked to."""
    parsed: str = ""
    """The letter which that is; empty: none."""
    methods: dict[str, str] = {}
    """Of an ensemble: the letter that each way of voting gives."""

    @property
    def right(self) -> bool:
        """The answer is the true one."""
        return self.letter == self.truth

    def scores(self) -> dict[str, float]:
        """Per-item scores by the names of their metrics, for paired comparisons of runs."""
        if not self.truth:
            return {}
        found = {"accuracy": float(self.right)}
        if self.plain is not None:
            found["accuracy[no TTA]"] = float(best(self.plain) == self.truth)
        if self.blank is not None:
            found["accuracy[blank image]"] = float(best(self.blank) == self.truth)
        found |= {f"accuracy[{k}]": float(v == self.truth) for k, v in self.methods.items()}
        return found

    def line(self) -> bytes:
        """One line of the file."""
        said = {**self.model_dump(exclude_defaults=True), **self.scores()}
        return json.dumps({"id": self.id, **said}, ensure_ascii=False).encode() + b"\n"


def best(probabilities: Sequence[float]) -> str:
    """The letter of the highest probability; of equal ones the first."""
    return LETTERS[int(np.argmax(probabilities))]


def read(path: Path) -> tuple[list[Answer], int]:
    """The answers of a file, each id once, and how many lines were none.

    A last line without its end is torn (the process was killed) and counts as none.
    """
    found: dict[str, Answer] = {}
    dropped = 0
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return [], 0
    whole = data[: data.rfind(b"\n") + 1]
    dropped += len(whole) < len(data)
    for line in whole.splitlines():
        try:
            answer = Answer.model_validate_json(line)
        except ValidationError:
            dropped += 1
            continue
        dropped += answer.id in found
        found.setdefault(answer.id, answer)
    return list(found.values()), dropped


def append(path: Path, answers: Iterable[Answer]) -> None:
    """Add lines in one write."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    try:
        os.write(descriptor, b"".join(answer.line() for answer in answers))
    finally:
        os.close(descriptor)


def replace(path: Path, data: bytes) -> None:
    """A file whole or not at all."""
    path.parent.mkdir(exist_ok=True, mode=0o700)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def resume(path: Path, key: Mapping[str, Any]) -> list[Answer]:
    """The answers that an earlier attempt left under the same `key`; others are removed.

    `key` says what makes an answer what it is: weights, data, views. It lies beside the file.
    Afterwards the file ends with a whole line, so that more can be appended.
    """
    beside, said = path.with_suffix(".key.json"), json.dumps(key, sort_keys=True).encode()
    path.parent.mkdir(exist_ok=True, mode=0o700)
    try:
        same = beside.read_bytes() == said
    except FileNotFoundError:
        same = False
    if not same:
        path.unlink(missing_ok=True)
        replace(beside, said)
        return []
    answers, dropped = read(path)
    if dropped:
        replace(path, b"".join(answer.line() for answer in answers))
    return answers


def probabilities(answers: Sequence[Answer]) -> Numbers:
    """[n, 4]."""
    return np.asarray([answer.probabilities for answer in answers], np.float64).reshape(-1, 4)


def truths(answers: Sequence[Answer]) -> Places:
    """[n], 0 to 3; -1 where the answer is not known."""
    return np.asarray([LETTERS.find(a.truth) if a.truth else -1 for a in answers], np.int64)

"""predictions/<split>.jsonl: the answers of a split, one line per answer."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from datasets_mm.atomic_files import write_atomic
from datasets_mm.recipes.record_classes import LETTERS
from engines.vqa.evaluation.calibration import Indices, Numbers

Four = tuple[float, float, float, float]


class Answer(BaseModel):
    """The answer to one question. Probabilities are in the order of options of the record."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    letter: str
    """The letter with the highest mean probability over views."""
    probabilities: Four
    truth: str = ""
    """The right letter; empty: unknown."""
    kind: str = ""
    """Type of the question."""
    medium: str = ""
    """Path of the picture, as in the data."""
    question: str = ""
    options: tuple[str, ...] = ()
    plain: Four | None = None
    """Probabilities of the plain view, where there are others."""
    votes: tuple[int, ...] | None = None
    """Number of views that answered each option."""
    blank: Four | None = None
    """Probabilities of the plain view with a blank picture."""
    shuffled: Four | None = None
    """Probabilities of the plain view with the picture of another question."""
    generated: str | None = None
    """The generated answer; None: not generated."""
    parsed: str = ""
    """The letter of `generated`; empty: unparsable."""
    methods: dict[str, str] = {}
    """Letters by method of an ensemble."""

    @property
    def right(self) -> bool:
        """Whether the letter is the right one."""
        return self.letter == self.truth

    def scores(self) -> dict[str, float]:
        """Per-item scores by the names of their metrics, for paired comparisons of runs."""
        if not self.truth:
            return {}
        scores = {"accuracy": float(self.right)}
        if self.plain is not None:
            scores["accuracy[no TTA]"] = float(best_letter(self.plain) == self.truth)
        if self.blank is not None:
            scores["accuracy[blank image]"] = float(best_letter(self.blank) == self.truth)
        if self.shuffled is not None:
            scores["accuracy[shuffled images]"] = float(best_letter(self.shuffled) == self.truth)
        scores |= {f"accuracy[{k}]": float(v == self.truth) for k, v in self.methods.items()}
        return scores

    def line(self) -> bytes:
        """The line of the file, with its scores."""
        content = {**self.model_dump(exclude_defaults=True), **self.scores()}
        return json.dumps({"id": self.id, **content}, ensure_ascii=False).encode() + b"\n"


def best_letter(probabilities: Sequence[float]) -> str:
    """The letter with the highest probability; of ties the first."""
    return LETTERS[int(np.argmax(probabilities))]


def read_answers(path: Path) -> tuple[list[Answer], int]:
    """The answers of a file, each id once, and the number of dropped lines.

    A last line without a newline (the process was killed) is dropped.
    """
    answers: dict[str, Answer] = {}
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
        dropped += answer.id in answers
        answers.setdefault(answer.id, answer)
    return list(answers.values()), dropped


def append_answers(path: Path, answers: Iterable[Answer]) -> None:
    """Append answers, if possible in one write.

    Raises:
        OSError: the disk is full, also where a part of them was written.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    data = memoryview(b"".join(answer.line() for answer in answers))
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    finally:
        os.close(descriptor)


def write_durable(path: Path, data: bytes) -> None:
    """Replace a file atomically when its content is on the disk; its folder is made if needed."""
    path.parent.mkdir(exist_ok=True, mode=0o700)
    write_atomic(path, data, durable=True)


def resume_answers(path: Path, key: Mapping[str, Any]) -> list[Answer]:
    """The answers of an earlier attempt with an equal `key`; otherwise the file is removed.

    `key`: all that answers depend on (weights, data, views), stored in `<split>.key.json`.
    Broken lines are removed, so that answers can be appended.
    """
    key_file, key_bytes = path.with_suffix(".key.json"), json.dumps(key, sort_keys=True).encode()
    path.parent.mkdir(exist_ok=True, mode=0o700)
    try:
        same = key_file.read_bytes() == key_bytes
    except FileNotFoundError:
        same = False
    if not same:
        path.unlink(missing_ok=True)
        write_durable(key_file, key_bytes)
        return []
    answers, dropped = read_answers(path)
    if dropped:
        write_durable(path, b"".join(answer.line() for answer in answers))
    return answers


def probabilities(answers: Sequence[Answer]) -> Numbers:
    """Probabilities[n, 4]."""
    return np.asarray([answer.probabilities for answer in answers], np.float64).reshape(-1, 4)


def truths(answers: Sequence[Answer]) -> Indices:
    """Right options[n], 0 to 3; -1: unknown."""
    return np.asarray([LETTERS.find(a.truth) if a.truth else -1 for a in answers], np.int64)

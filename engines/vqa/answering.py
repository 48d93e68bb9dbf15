"""From a model and questions to answers on disk: the four letters' logits, views, written answers.

What joins the model to `infer` and `evaluate`, which know no torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from engines.torchkit.training.early_stopping import eval_mode
from engines.vqa.context import Context
from engines.vqa.data.option_order import IDENTITY, Permutation
from engines.vqa.data.questions import Questions, stratified
from engines.vqa.evaluation import infer, metrics, run_outputs, tta
from engines.vqa.evaluation.infer import Asked
from engines.vqa.evaluation.predictions import Answer
from engines.vqa.evaluation.tta import Logits, View
from engines.vqa.prepare import Prepared


def letter_logits(
    ready: Prepared,
    questions: Questions,
    *,
    scale: float = 1.0,
    permutation: Permutation = IDENTITY,
    blank: bool = False,
) -> Logits:
    """Logits of the four letters at the first position of each answer, float32 [n, 4].

    In the record's own order of options, whatever order was shown. `scale`: of the picture's sides;
    `blank`: pictures of nothing.
    """
    letters = torch.tensor(ready.wording.letters, device=next(ready.model.parameters()).device)
    rows = np.arange(len(questions))
    with eval_mode(ready.model):
        found = [
            ready.model.next_logits(batch)[:, letters].float()
            for batch in ready.batches(questions, rows, scale, permutation, blank=blank)
        ]
        logits = torch.cat(found).cpu().numpy()
    return tta.unpermuted(logits, permutation)


def written(ready: Prepared, questions: Questions, longest: int) -> list[str]:
    """What the model writes when it is asked, greedy, at most `longest` tokens."""
    wording, rows = ready.wording, np.arange(len(questions))
    said: list[str] = []
    with eval_mode(ready.model):
        for batch in ready.batches(questions, rows, ahead=False):
            made = ready.model.generate(batch, longest, wording.stops, wording.pad)
            said += [wording.decode(tokens) for tokens in made]
    return said


class Reader:
    """A prepared model as `infer` wants one."""

    def __init__(self, context: Context, ready: Prepared) -> None:
        self._context = context
        self._ready = ready

    def logits(self, questions: Questions, view: View, *, blank: bool = False) -> Logits:
        """See `letter_logits`."""
        scale, permutation = view
        with self._context.precision.autocast():
            return letter_logits(
                self._ready, questions, scale=scale, permutation=permutation, blank=blank
            )

    def written(self, questions: Questions) -> list[str]:
        """See `written`."""
        with self._context.precision.autocast():
            return written(self._ready, questions, self._context.params.max_new_tokens)


def answer_split(
    context: Context, ready: Prepared, questions: Questions, name: str, key: Mapping[str, Any]
) -> list[Answer]:
    """Answer all questions of a split, whatever an earlier attempt left; metrics, files, notices.

    `key`: what the answers depend on beside questions and settings: which weights.

    Raises:
        EngineError: not every question got exactly one answer.
    """
    emit = context.emit
    emit.phase("generate" if context.params.written else "eval", name)
    path = context.run_dir / "predictions" / f"{name}.jsonl"
    asked = how(context, questions, key)
    answers = infer.answer_all(
        Reader(context, ready), questions, asked, path, context.report_progress
    )
    file = path.relative_to(context.run_dir).as_posix()
    for metric in metrics.metrics(answers, name, file):
        emit.send(metric)
        if metric.name == "picture gain" and (metric.low is None or metric.low <= 0):
            emit.notice(
                "pictures-unused",
                f"{name}: with blank pictures the model is right as often, as far as "
                f"{metric.n} questions tell; it may answer from the words alone",
            )
    run_outputs.announce(emit, context.run_dir, name, answers)
    return answers


def how(context: Context, questions: Questions, key: Mapping[str, Any]) -> Asked:
    """What a run's settings ask of the questions of a split."""
    params = context.params
    known = np.flatnonzero(questions.answers >= 0)
    sample = known[stratified(questions.answers[known], params.written)]
    return Asked(
        views=tta.views(params.tta_scales, options=params.tta_options),
        block=params.predict_batch * infer.BLOCK_BATCHES,
        blank=params.blank and len(known) == len(questions),
        written=frozenset(questions.ids[row] for row in sample) if params.written else frozenset(),
        key={
            **key, "questions": digest(questions), "tokens": params.max_new_tokens,
            "batch": params.predict_batch, "pixels": params.long_side,
        },
    )  # fmt: skip


def digest(questions: Questions) -> str:
    """Identity of what is asked."""
    asked = [questions.ids, questions.paths, questions.texts, questions.options]
    content = json.dumps([*asked, questions.answers.tolist()]).encode()
    return hashlib.blake2b(content, digest_size=16).hexdigest()

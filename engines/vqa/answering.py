"""Answers questions with a model: letter logits, generated answers, outputs of a split."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from engines.torchkit.modeling.eval_mode import eval_mode
from engines.vqa.context import Context
from engines.vqa.data.option_order import IDENTITY, Permutation
from engines.vqa.data.questions import Questions, select_stratified
from engines.vqa.evaluation import infer, metrics, run_outputs, tta
from engines.vqa.evaluation.infer import InferenceOptions
from engines.vqa.evaluation.predictions import Answer
from engines.vqa.evaluation.tta import Logits, View
from engines.vqa.prepare import PreparedAnswerer


def compute_letter_logits(
    ready: PreparedAnswerer,
    questions: Questions,
    *,
    scale: float = 1.0,
    permutation: Permutation = IDENTITY,
    blank: bool = False,
) -> Logits:
    """Logits of the four letters at the first position of each answer, float32 [n, 4].

    In the order of options of the record, whatever order was shown. `scale`: of the sides of
    pictures; `blank`: pictures of the mean colour only.
    """
    device, template = next(ready.model.parameters()).device, ready.template
    tokens = [torch.tensor(ids, device=device) for ids in template.forms or zip(template.letters)]
    rows = np.arange(len(questions))
    with eval_mode(ready.model):
        pieces = [
            sum_letter_forms(ready.model.next_logits(batch), tokens)
            for batch in ready.batches(questions, rows, scale, permutation, blank=blank)
        ]
        logits = torch.cat(pieces).cpu().numpy()
    return tta.restore_order(logits, permutation)


def sum_letter_forms(logits: torch.Tensor, tokens: Sequence[torch.Tensor]) -> torch.Tensor:
    """Logits of the four letters, float32 [n, 4], from those of the vocabulary [n, V].

    `tokens`: ids of the tokens of each letter; their probabilities are summed (log Σ exp).
    """
    return torch.stack([logits[:, ids].float().logsumexp(1) for ids in tokens], 1)


def generate_answers(ready: PreparedAnswerer, questions: Questions, longest: int) -> list[str]:
    """Generate answers greedily, of at most `longest` tokens."""
    template, rows = ready.template, np.arange(len(questions))
    texts: list[str] = []
    with eval_mode(ready.model):
        for batch in ready.batches(questions, rows, ahead=False):
            sequences = ready.model.generate(batch, longest, template.stops, template.pad)
            texts += [template.decode(tokens) for tokens in sequences]
    return texts


class ModelAnswerer:
    """A prepared model as an `infer.QuestionModel`."""

    def __init__(self, context: Context, ready: PreparedAnswerer) -> None:
        self._context = context
        self._ready = ready

    def letter_logits(self, questions: Questions, view: View, *, blank: bool = False) -> Logits:
        """See `compute_letter_logits`."""
        scale, permutation = view
        with self._context.precision.autocast():
            return compute_letter_logits(
                self._ready, questions, scale=scale, permutation=permutation, blank=blank
            )

    def generate_answers(self, questions: Questions) -> list[str]:
        """See the function `generate_answers`."""
        with self._context.precision.autocast():
            return generate_answers(self._ready, questions, self._context.params.max_new_tokens)


def answer_split(
    context: Context,
    ready: PreparedAnswerer,
    questions: Questions,
    name: str,
    key: Mapping[str, Any],
) -> list[Answer]:
    """Answer the questions of a split that have no answer yet; sends metrics, files and notices.

    Of several ranks each answers its share, and only rank 0 returns answers.

    `key`: what the answers depend on besides questions and settings: the weights.

    Raises:
        EngineError: not every question got exactly one answer.
    """
    emit = context.emit
    emit.phase("generate" if context.params.written else "eval", name)
    path = context.run_dir / "predictions" / f"{name}.jsonl"
    options = inference_options(context, questions, key)
    answers = infer.answer_all(
        ModelAnswerer(context, ready), questions, options, path, context.report_progress
    )
    if not context.process_group.is_rank_zero:
        return []
    file = path.relative_to(context.run_dir).as_posix()
    for metric in metrics.compute_metrics(answers, name, file):
        emit.send(metric)
        if metric.name == "picture gain" and (metric.low is None or metric.low <= 0):
            emit.notice(
                "pictures-unused",
                f"{name}: with blank pictures the model is right as often, as far as "
                f"{metric.n} questions tell; it may answer from the words alone",
            )
    run_outputs.announce_outputs(emit, context.run_dir, name, answers)
    return answers


def inference_options(
    context: Context, questions: Questions, key: Mapping[str, Any]
) -> InferenceOptions:
    """The inference options of a split, from the settings of the run."""
    params = context.params
    group = context.process_group
    ranks = (group.rank, group.size) if context.spec.task != "train" else (0, 1)
    answered = np.flatnonzero(questions.answers >= 0)
    sample = answered[select_stratified(questions.answers[answered], params.written)]
    return InferenceOptions(
        views=tta.views(params.tta_scales, options=params.tta_options),
        block=params.eval_batch_size * infer.BLOCK_BATCHES,
        blank=params.blank and len(answered) == len(questions),
        other_media=infer.pair_media(questions) if params.shuffled else {},
        written=frozenset(questions.ids[row] for row in sample) if params.written else frozenset(),
        key={
            **key, "questions": questions_digest(questions), "tokens": params.max_new_tokens,
            "batch": params.eval_batch_size, "pixels": params.long_side,
            **({"forms": True} if params.letter_forms else {}),
        },
        rank_and_size=ranks,
        wait=group.wait if ranks[1] > 1 else lambda: None,
    )  # fmt: skip


def questions_digest(questions: Questions) -> str:
    """Digest of questions, options, pictures' paths and answers."""
    fields = [questions.ids, questions.paths, questions.texts, questions.options]
    content = json.dumps([*fields, questions.answers.tolist()]).encode()
    return hashlib.blake2b(content, digest_size=16).hexdigest()

"""From a spec to questions: which are trained on, which held out, which asked in the end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datasets_mm.building.build import Subset
from datasets_mm.folds import FoldError, sample_stratified
from engines.emitter import EngineError
from engines.vqa.context import Context
from engines.vqa.data import fold_split, paraphrases, questions
from engines.vqa.data.questions import Questions, stratified


@dataclass(frozen=True)
class Data:
    """Everything that is read of the subsets."""

    fingerprint: str
    train: Questions
    validation: Questions
    """Held out of training; at most `validate_limit` of them."""
    splits: dict[str, Questions]
    """What is evaluated or answered in the end, by name."""
    dealt: str
    """How the rows were dealt, for the record."""
    delivered: Subset | None = None
    """The subset whose answers are a submission."""
    worded: str = ""
    """Which paraphrases the training questions have, for the record; empty: none."""


def read_data(context: Context) -> Data:
    """Build (or open) the subsets and deal the rows.

    Raises:
        EngineError: a subset cannot be built, has no question, or cannot be dealt.
    """
    params, spec, source = context.params, context.spec, context.source
    own = source.build(spec.subset, context.emit)
    subsets = {spec.subset: own}
    for name in wanted(context, own):
        if name in subsets:
            continue
        optional = name != params.infer_on and params.evaluate_on is None
        if optional and (sentence := source.find_problem(name)):
            context.emit.notice("not-evaluated", sentence)
            continue
        subsets[name] = source.build(name, context.emit)
    asked = {name: questions.read(subset) for name, subset in subsets.items()}
    splits = {name: asked[name] for name in wanted(context, own) if name in asked}
    delivered = subsets.get(spec.subset if spec.task == "infer" else params.infer_on)
    none = asked[spec.subset].take([])
    train, held, dealt, worded = none, none, "", ""
    if spec.task in ("train", "probe"):
        train, held, dealt = deal(context, asked[spec.subset], own)
        if params.paraphrases:
            train, worded = paraphrases.applied(train, params.paraphrases)
    return Data(own.fingerprint, train, held, splits, dealt, delivered, worded)


def wanted(context: Context, own: Subset) -> list[str]:
    """Names of the subsets that are answered in the end; the one of the submission last."""
    params, spec = context.params, context.spec
    if spec.task == "probe":
        return []
    if spec.task == "infer":
        return [spec.subset]
    named = own.evaluate_on if params.evaluate_on is None else params.evaluate_on
    if spec.task == "evaluate" and not named:
        named = (spec.subset,)
    last = [params.infer_on] if params.infer_on else []
    return list(dict.fromkeys([*(one for one in named if one not in last), *last]))


def deal(context: Context, asked: Questions, own: Subset) -> tuple[Questions, Questions, str]:
    """Training questions, held-out ones, and how they were parted.

    Raises:
        EngineError: a question has no known answer, or the rows cannot be dealt.
    """
    params = context.params
    if unknown := [name for name, a in zip(asked.ids, asked.answers, strict=True) if a < 0]:
        raise EngineError(
            f"subset '{own.name}': {len(unknown)} of {len(asked)} questions have no answer (first: "
            f"{unknown[0]}); train on questions whose answer is a, b, c or d"
        )
    whole = len(asked)
    if params.sample:
        asked = asked.take(
            sample_stratified(asked.answers, asked.ids, params.sample, context.spec.seed)
        )
    try:
        dealt = fold_split.dealt(context, asked, own)
        fold = dealt.lookup(asked.ids)
        asked = asked.dealt(dealt)
    except FoldError as error:
        raise EngineError(str(error)) from None
    held = np.flatnonzero(fold == params.fold)
    training = asked.take(np.flatnonzero(fold != params.fold))
    looked_at = held[stratified(asked.answers[held], params.validate_limit)]
    part = f"fold {params.fold + 1} of {params.folds}"
    what = part if params.folds else f"{dealt.share:.0%} held out"
    drawn = f"{len(asked)} of {whole} rows drawn; " if len(asked) < whole else ""
    said = (
        f"{drawn}{what}: {len(training)} to train, {len(held)} held out, {len(looked_at)} of them "
        f"looked at; by answer, pictures together; {dealt.fingerprint}"
    )
    return training, asked.take(looked_at), said

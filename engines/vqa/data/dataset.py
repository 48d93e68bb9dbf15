"""Questions of a run: builds its subsets and splits them for training, validation, answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datasets_mm.building.build import Subset
from datasets_mm.folds import FoldError, sample_stratified
from engines.emitter import EngineError
from engines.vqa.context import Context
from engines.vqa.data import fold_file, paraphrases, questions
from engines.vqa.data.questions import Questions, select_stratified


@dataclass(frozen=True)
class VqaData:
    """The data of a run."""

    fingerprint: str
    train: Questions
    validation: Questions
    """Questions held out of training; at most `validate_limit`."""
    splits: dict[str, Questions]
    """Questions that are answered after training, by name of their subset."""
    folds_fact: str
    """How the rows were split, for the record."""
    submission_subset: Subset | None = None
    """The subset whose answers are submitted; None: no submission."""
    paraphrases_fact: str = ""
    """The paraphrases of the training questions, for the record; empty: none."""

    @property
    def evaluated_samples(self) -> int:
        """Questions of all splits."""
        return sum(map(len, self.splits.values()))


def read_data(context: Context) -> VqaData:
    """Build (or open) the subsets and split the questions.

    Raises:
        EngineError: a subset cannot be built, has no question, or cannot be split.
    """
    params, spec, source = context.params, context.spec, context.source
    subset = source.build(spec.subset, context.emit)
    subsets = {spec.subset: subset}
    for name in answered_names(context, subset):
        if name in subsets:
            continue
        optional = name != params.infer_on and params.evaluate_on is None
        if optional and (sentence := source.find_problem(name)):
            context.emit.notice("not-evaluated", sentence)
            continue
        subsets[name] = source.build(name, context.emit)
    questions_by_name = {name: questions.read_questions(subset) for name, subset in subsets.items()}
    splits = {
        name: questions_by_name[name]
        for name in answered_names(context, subset)
        if name in questions_by_name
    }
    submission_subset = subsets.get(spec.subset if spec.task == "infer" else params.infer_on)
    no_questions = questions_by_name[spec.subset].select([])
    train, validation, folds_fact, paraphrases_fact = no_questions, no_questions, "", ""
    if spec.task in ("train", "probe"):
        train, validation, folds_fact = split_validation(
            context, questions_by_name[spec.subset], subset
        )
        if params.paraphrases:
            train, paraphrases_fact = paraphrases.add_paraphrases(train, params.paraphrases)
    return VqaData(
        subset.fingerprint,
        train,
        validation,
        splits,
        folds_fact,
        submission_subset,
        paraphrases_fact,
    )


def answered_names(context: Context, subset: Subset) -> list[str]:
    """Names of the subsets that are answered after training; that of the submission last."""
    params, spec = context.params, context.spec
    if spec.task == "probe":
        return []
    if spec.task == "infer":
        return [spec.subset]
    named = subset.evaluate_on if params.evaluate_on is None else params.evaluate_on
    if spec.task == "evaluate" and not named:
        named = (spec.subset,)
    last = [params.infer_on] if params.infer_on else []
    return list(dict.fromkeys([*(name for name in named if name not in last), *last]))


def split_validation(
    context: Context, questions: Questions, subset: Subset
) -> tuple[Questions, Questions, str]:
    """Training questions, validation questions, and a fact on the split for the record.

    Raises:
        EngineError: a question has no known answer, or the rows cannot be split.
    """
    params = context.params
    if unknown := [name for name, a in zip(questions.ids, questions.answers, strict=True) if a < 0]:
        raise EngineError(
            f"subset '{subset.name}': {len(unknown)} of {len(questions)} questions have no answer "
            f"(first: {unknown[0]}); train on questions whose answer is a, b, c or d"
        )
    whole = len(questions)
    if params.sample:
        questions = questions.select(
            sample_stratified(questions.answers, questions.ids, params.sample, context.spec.seed)
        )
    try:
        folds = fold_file.read_or_assign_folds(context, questions, subset)
        fold = folds.lookup(questions.ids)
        questions = questions.with_folds(folds)
    except FoldError as error:
        raise EngineError(str(error)) from None
    held = np.flatnonzero(fold == params.fold)
    training = questions.select(np.flatnonzero(fold != params.fold))
    validated = held[select_stratified(questions.answers[held], params.validate_limit)]
    fold_name = f"fold {params.fold + 1} of {params.folds}"
    part_name = fold_name if params.folds else f"{folds.share:.0%} held out"
    drawn = f"{len(questions)} of {whole} rows drawn; " if len(questions) < whole else ""
    fact = (
        f"{drawn}{part_name}: {len(training)} to train, {len(held)} held out, {len(validated)} of "
        f"them looked at; by answer, pictures together; {folds.fingerprint}"
    )
    return training, questions.select(validated), fact

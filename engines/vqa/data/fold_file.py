"""Fold file of a suite: the first run that needs it writes it, all others read it.

One file holds all folds, so that runs of a suite split the same data. If the data were rebuilt
meanwhile, a run fails.
"""

from __future__ import annotations

import re
from pathlib import Path

from datasets_mm import folds
from datasets_mm.building.build import Subset
from datasets_mm.folds import FoldError, Folds
from engines.vqa.context import Context
from engines.vqa.data.questions import Questions


def read_or_assign_folds(context: Context, questions: Questions, subset: Subset) -> Folds:
    """The folds of the questions, from the fold file of the suite; writes it where it is missing.

    Raises:
        FoldError: the questions cannot be split, or the file is of other data.
    """
    params, seed = context.params, context.spec.seed
    share = 0.0 if params.folds else params.validation_share
    drawn = f"-n{params.sample}" if params.sample else ""
    path = fold_file(context.run_dir, subset.name, f"{params.folds or f'{share:g}'}{drawn}-s{seed}")
    if path.is_file():
        stored = folds.load(path)
        if stored.subset_fingerprint != subset.fingerprint:
            raise FoldError(
                f"{path}: is of subset {stored.subset_fingerprint[:12]}, and '{subset.name}' is "
                f"{subset.fingerprint[:12]} now: its data have changed since the suite began; "
                "start a new suite"
            )
        return stored
    if params.folds:
        fold = folds.assign(questions.answers, questions.groups(), params.folds, seed)
    else:
        fold = folds.hold_out(questions.answers, questions.groups(), share, seed)
    assigned = Folds(tuple(questions.ids), fold, params.folds, seed, share, subset.fingerprint)
    folds.save(assigned, path)
    return assigned


def fold_file(run_dir: Path, subset: str, split: str) -> Path:
    """Path of the fold file: in the folder of the suite, or of a run without a suite."""
    suite = run_dir.parent.parent if run_dir.parent.name == "runs" else run_dir
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", subset)
    return suite / "folds" / f"{plain}-{split}.json"

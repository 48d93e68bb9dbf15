"""Who is held out: dealt by the first run of a suite that needs it, read by all others.

One file for all folds, so that they are folds of one whole even where a suite is resumed after its
data were built anew: then the file and the data differ, and that is said, not repaired.
"""

from __future__ import annotations

import re
from pathlib import Path

from datasets_mm import folds
from datasets_mm.building.build import Subset
from datasets_mm.folds import FoldError, Folds
from engines.vqa.context import Context
from engines.vqa.data.questions import Questions


def dealt(context: Context, asked: Questions, own: Subset) -> Folds:
    """The fold of every question: from the suite's file, which is written where there is none.

    Raises:
        FoldError: the questions cannot be dealt, or the file is that of other data.
    """
    params, seed = context.params, context.spec.seed
    share = 0.0 if params.folds else params.validation_share
    drawn = f"-n{params.sample}" if params.sample else ""
    path = file(context.run_dir, own.name, f"{params.folds or f'{share:g}'}{drawn}-s{seed}")
    if path.is_file():
        found = folds.load(path)
        if found.subset != own.fingerprint:
            raise FoldError(
                f"{path}: is of subset {found.subset[:12]}, and '{own.name}' is "
                f"{own.fingerprint[:12]} now: its data have changed since the suite began; start "
                "a new suite"
            )
        return found
    if params.folds:
        fold = folds.assign(asked.answers, asked.groups(), params.folds, seed)
    else:
        fold = folds.hold_out(asked.answers, asked.groups(), share, seed)
    made = Folds(tuple(asked.ids), fold, params.folds, seed, share, own.fingerprint)
    folds.save(made, path)
    return made


def file(run_dir: Path, subset: str, how: str) -> Path:
    """Where the folds lie: in the suite's folder, or in the run's where it stands alone."""
    suite = run_dir.parent.parent if run_dir.parent.name == "runs" else run_dir
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", subset)
    return suite / "folds" / f"{plain}-{how}.json"

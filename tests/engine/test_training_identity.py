"""A checkpoint belongs to its data, settings and code; resume checks all three."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engines.emitter import Emitter, EngineError
from engines.retrieval.pairs import NONE, Pool, Side
from engines.torchkit import checkpoints
from engines.torchkit.identity import TrainingIdentity, fingerprint_samples, source_digest
from tests.engine.test_torchkit_loop import job, run

IDENTITY = TrainingIdentity("data-1", 50, "settings-1", "code-1")


def interrupted(root: Path, identity: TrainingIdentity | None) -> None:
    """Leaves a checkpoint after step 5."""
    training = job(root, checkpoint_every=5, identity=identity, stop_at=5)
    run(training)
    assert checkpoints.newest(root) is not None


def resumed(root: Path, identity: TrainingIdentity) -> tuple[int, list[str]]:
    """First step of the resumed training, and the codes of its notices."""
    emit = Emitter()
    training = job(root, checkpoint_every=5, identity=identity)
    notices: list[str] = []
    emit.notice = lambda code, text: notices.append(code)  # type: ignore[method-assign]
    run(training, emit)
    return len(training.losses), notices


def test_equal_identities_go_on_without_a_word(tmp_path: Path) -> None:
    interrupted(tmp_path, IDENTITY)
    steps, notices = resumed(tmp_path, IDENTITY)
    assert (steps, notices) == (21 - 5, ["resumed"])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"data": "data-2", "samples": 24}, "50 samples with fingerprint data-1 then, 24 with"),
        ({"settings": "settings-2"}, "settings of the training have changed"),
    ],
)
def test_other_data_or_settings_are_refused(
    tmp_path: Path, change: dict[str, object], sentence: str
) -> None:
    interrupted(tmp_path, IDENTITY)
    with pytest.raises(EngineError, match=sentence):
        resumed(tmp_path, replace(IDENTITY, **change))


def test_other_code_and_a_checkpoint_of_version_0_1_are_noted(tmp_path: Path) -> None:
    interrupted(tmp_path / "code", IDENTITY)
    assert resumed(tmp_path / "code", replace(IDENTITY, code="code-2"))[1] == [
        "checkpoint-changed",
        "resumed",
    ]
    interrupted(tmp_path / "old", None)
    assert "identity" not in json.loads(
        (checkpoints.newest(tmp_path / "old") / "state.json").read_text()
    )
    assert resumed(tmp_path / "old", IDENTITY)[1] == ["checkpoint-changed", "resumed"]


def test_settings_that_change_no_step_are_not_part_of_it() -> None:
    from engines.retrieval import Params

    def identity(**params: object) -> TrainingIdentity:
        return TrainingIdentity.of_run(Params(**params), 42, 64, "d", 10)

    same = identity(evaluate_batch=7, workers=3, checkpoint_every=9, grad_cache_chunk=4)
    assert same == identity()
    for other in ({"lr": 1e-3}, {"epochs": 2}, {"max_steps": 3}, {"weight_decay": 0.2}):
        assert identity(**other).settings != identity().settings


def test_a_picture_that_can_no_longer_be_read_is_other_data() -> None:
    rows = np.arange(3)
    whole = Pool(Side(rows, rows), Side(rows, rows), rows, np.arange(4))
    lost = Pool(Side(rows, np.array([0, NONE, 2])), Side(rows, rows), rows, np.arange(4))
    assert whole.digest("f") == whole.digest("f")
    assert lost.digest("f") != whole.digest("f")
    assert whole.digest("g") != whole.digest("f")


def test_digests_keep_parts_apart() -> None:
    assert fingerprint_samples("f", ["ab", "c"]) != fingerprint_samples("f", ["a", "bc"])
    assert len(source_digest()) == 64

"""Early stopping and the best checkpoint: direction of the metric, patience, what is kept."""

import errno
import json
import math
import os
from unittest import mock

import pytest
import torch
from torch import nn

from engines.captioning.params import Params as CaptioningParams
from engines.emitter import Emitter, EngineError
from engines.torchkit.training.early_stopping import (
    EarlyStopping,
    Monitor,
    best_index,
    discard_best,
)
from engines.vqa.params import Params as VqaParams


def monitor(**settings) -> Monitor:
    return Monitor.from_params(VqaParams.model_validate(settings))


def test_the_best_value_follows_the_direction_of_the_metric():
    values = [0.5, 0.7, 0.6, 0.65]
    assert best_index(values, 0.0, higher_is_better=True) == (1, 2)
    assert best_index(values, 0.0, higher_is_better=False) == (0, 3)
    assert best_index(values, 0.2, higher_is_better=True) == (0, 3)
    assert best_index([math.nan, 0.4, math.nan], 0.0, higher_is_better=True) == (1, 1)
    assert not monitor(monitor="loss").higher_is_better
    assert monitor(monitor="accuracy").higher_is_better
    for name in ("diversity", "siglip", "meteor", "cider"):
        params = CaptioningParams.model_validate({"monitor": name})
        assert Monitor.from_params(params).higher_is_better


def test_the_studys_history_stops_after_the_sixth_epoch():
    """Mean SigLIP2 by epoch of the users' E5-v3: best in epoch 3, patience 3, stopped after 6."""
    scores = [0.2355, 0.2330, 0.3383, 0.1347, 0.0430, 0.0032]
    passed = [best_index(scores[:n], 0.001, higher_is_better=True) for n in range(1, 7)]
    assert [since for _, since in passed] == [0, 1, 0, 1, 2, 3]
    assert passed[-1][0] == 2


def test_load_best_follows_early_stopping_unless_it_is_set():
    assert monitor(early_stopping=True).load_best
    assert not monitor().load_best
    assert not monitor(early_stopping=True, load_best=False).load_best
    only_best = monitor(load_best=True)
    assert only_best.load_best
    assert only_best.active
    assert not monitor().active


def run_through(root, asked: Monitor, values: list[float]) -> tuple[float, list, list]:
    """Weights after these validations, whether each ended training, and the notices."""
    model, emit = nn.Linear(1, 1), Emitter()
    looks = EarlyStopping(root, model, emit, asked)
    ended = []
    for epoch, value in enumerate(values, 1):
        with torch.no_grad():
            model.weight.fill_(epoch)
        ended.append(looks.record(epoch, loss=1.0, accuracy=value))
    looks.restore_best()
    return model.weight.item(), ended, [m for m in emit.sent if m.kind == "notice"]


@pytest.mark.parametrize(
    ("settings", "weight", "stops", "said"),
    [
        ({"early_stopping": True}, 2, [False, False, True], "epoch 2 (accuracy 0.700) are kept"),
        ({"early_stopping": True, "load_best": False}, 3, [False, False, True], "the last weights"),
        ({"load_best": True}, 2, [False] * 3, "epoch 2 (accuracy 0.700) replaces epoch 3"),
        ({}, 3, [False] * 3, ""),
    ],
)
def test_the_best_weights_are_kept_as_asked(tmp_path, settings, weight, stops, said):
    asked = monitor(monitor="accuracy", **settings)
    found, ended, notices = run_through(tmp_path, asked, [0.5, 0.7, 0.6])
    assert (found, ended) == (weight, stops)
    assert any(said in notice.text for notice in notices) if said else not notices
    history = json.loads((tmp_path / "epochs.json").read_text())
    assert [row["accuracy"] for row in history] == [0.5, 0.7, 0.6]


def test_best_weights_stay_for_a_resumed_attempt_until_they_are_discarded(tmp_path):
    """An attempt may end between loading them and the final checkpoint: full disk, kill."""
    asked = monitor(monitor="accuracy", load_best=True)
    assert run_through(tmp_path, asked, [0.5, 0.7, 0.6])[0] == 2
    resumed = nn.Linear(1, 1)
    assert not EarlyStopping(tmp_path, resumed, Emitter(), asked, stage=2).restore_best()
    assert EarlyStopping(tmp_path, resumed, Emitter(), asked).restore_best()
    assert resumed.weight.item() == 2
    discard_best(tmp_path)
    assert not EarlyStopping(tmp_path, resumed, Emitter(), asked).restore_best()


def test_a_history_that_cannot_be_written_or_read_is_an_error_and_never_no_history(
    tmp_path, monkeypatch
):
    """Without it the next epoch would count as the best and replace better weights."""
    history = tmp_path / "epochs.json"
    stopping = EarlyStopping(
        tmp_path, nn.Linear(1, 1), Emitter(), monitor(monitor="accuracy", load_best=True)
    )
    stopping.record(1, loss=1.0, accuracy=0.9)
    with monkeypatch.context() as full_disk:
        full_disk.setattr(os, "fsync", mock.Mock(side_effect=OSError(errno.ENOSPC, "full")))
        with pytest.raises(OSError, match="full"):
            stopping.record(2, loss=1.0, accuracy=0.5)
    assert [row["accuracy"] for row in json.loads(history.read_text())] == [0.9]
    for damage in ("", "[{", "3", "[3]"):
        history.write_text(damage)
        with pytest.raises(EngineError, match="epochs.json is damaged"):
            stopping.record(2, loss=1.0, accuracy=0.5)


def test_facts_of_a_record_name_metric_direction_and_what_is_loaded():
    assert monitor(monitor="accuracy", early_stopping=True, patience=2).facts() == {
        "monitor": "accuracy, higher is better",
        "early_stopping": "patience 2, min_delta 0",
        "load_best": "yes, by accuracy",
    }
    assert monitor().facts()["load_best"] == "no, the last weights"
    assert monitor(monitor_where="loss < 2").facts()["monitor"] == (
        "loss, lower is better, where loss < 2"
    )


@pytest.mark.parametrize(
    ("settings", "losses", "weight", "ended", "said"),
    [
        # 0.9 is the best, but of an epoch whose loss is too high; 0.6 is that of the others.
        ({"load_best": True}, [3, 1, 1, 3], 3, [False] * 4, "epoch 3 (accuracy 0.600) replaces"),
        (
            {"early_stopping": True},
            [1, 3, 3, 1],
            1,
            [False, False, True],
            "(accuracy 0.700) are kept",
        ),
        (
            {"load_best": True},
            [3, 3, math.nan, 3],
            4,
            [False] * 4,
            "none of 4 validations has loss < 2",
        ),
        (
            {"early_stopping": True},
            [3, 3, 3, 3],
            2,
            [False, True],
            "none of 2 validations has loss",
        ),
    ],
)
def test_an_epoch_outside_the_condition_is_never_the_best(
    tmp_path, settings, losses, weight, ended, said
):
    model, emit = nn.Linear(1, 1), Emitter()
    asked = monitor(monitor="accuracy", monitor_where="loss < 2", patience=2, **settings)
    looks = EarlyStopping(tmp_path, model, emit, asked)
    stops = []
    for epoch, (loss, accuracy) in enumerate(zip(losses, [0.7, 0.5, 0.6, 0.9], strict=True), 1):
        with torch.no_grad():
            model.weight.fill_(epoch)
        stops.append(looks.record(epoch, loss=loss, accuracy=accuracy))
        if stops[-1]:
            break
    looks.restore_best()
    assert (model.weight.item(), stops) == (weight, ended)
    notices = [m.text for m in emit.sent if m.kind == "notice"]
    assert len([text for text in notices if said in text]) == 1, notices

"""VQA from spec to answers on drawings: folds, resuming, averages, early stopping, bad input."""

import json

import pytest
from safetensors.torch import load_file

from datasets_mm import folds
from engines import catalog
from engines.emitter import Emitter, EngineError, Stopped
from engines.torchkit.checkpointing.trained_tensors import trainable_tensors
from engines.vqa import validation
from tests.engines import engine_runs, tiny_vqa
from tests.engines.engine_runs import Impatient, weights
from tests.engines.tiny_vqa import go, lines, spec

tiny = engine_runs.subset_fixture(tiny_vqa.write)


def of_kind(sent: list, kind: str) -> list:
    return [message for message in sent if message.kind == kind]


def test_a_fold_is_trained_validated_and_says_what_it_did(tiny, tmp_path):
    settings = {
        "folds": 3, "fold": 1, "ema": 0.5, "epochs": 2, "evaluate_on": ["asks_more"],
        "tta_scales": [0.9, 1.5],
    }  # fmt: skip
    sent = go(spec(tiny, settings=settings), tmp_path / "run")
    plan = of_kind(sent, "plan")[0]
    assert (plan.samples, plan.steps, plan.effective_batch) == (12, 6, 4)
    assert 0 < plan.trainable_parameters < plan.parameters
    assert "language_model" in plan.facts["trainable"]
    assert "visual" not in plan.facts["trainable"]
    assert "vision tower whole" in plan.facts["model"]
    assert (plan.facts["num_workers"], plan.facts["pin_memory"]) == ("0", "false"), "auto, on a CPU"
    assert plan.facts["picture_tokens"] == "4"
    dealt = folds.load(next(tmp_path.rglob("folds/*.json")))
    held = {name for name, fold in zip(dealt.ids, dealt.fold.tolist(), strict=True) if fold == 1}
    assert {line["id"] for line in lines(tmp_path / "run", "validation")} == held
    assert len(lines(tmp_path / "run", "asks_more")) == 6
    assert {m.split for m in of_kind(sent, "metric") if m.name == "accuracy"} == {
        "validation", "asks_more",
    }  # fmt: skip
    curve = [m.metrics for m in of_kind(sent, "step")]
    void = [m.text for m in of_kind(sent, "notice") if m.code == "scale-void"]
    assert len(void) == 1  # 56 px: 50.4 rounds back to two tokens a side, 84 does not
    assert "at 0.9 " in void[0]
    assert "letter_accuracy" in curve[0]
    assert "validation_loss" in curve[-1]
    (timing,) = of_kind(sent, "timing")
    assert timing.model_flops_per_sample > 2 * plan.parameters
    assert timing.tokens_per_second > 10 * timing.samples_per_second, "pictures' tokens too"


def test_a_sample_is_drawn_before_rows_are_held_out_and_is_what_was_loaded(tiny, tmp_path):
    settings = {"sample": 12, "validation_share": 0.25, "save_model": False}
    sent = go(spec(tiny, settings=settings), tmp_path / "run")
    plan = of_kind(sent, "plan")[0]
    assert (plan.samples, plan.steps, plan.epochs) == (9, 3, 1.0)
    assert plan.facts["folds"].startswith("12 of 18 rows drawn; 25% held out: 9 to train, 3 held")
    dealt = folds.load(next(tmp_path.rglob("folds/*-n12-*.json")))
    assert len(dealt.ids) == 12
    assert len(lines(tmp_path / "run", "validation")) == 3


def test_folds_hold_out_every_question_once(tiny, tmp_path):
    held: list[str] = []
    prints = set()
    for fold in range(3):
        settings = {"folds": 3, "fold": fold, "max_steps": 1, "save_model": False}
        go(spec(tiny, settings=settings), tmp_path / str(fold))
        held += [line["id"] for line in lines(tmp_path / str(fold), "validation")]
        prints |= {folds.load(path).fingerprint for path in tmp_path.rglob("folds/*.json")}
    assert sorted(held) == [row["id"] for row in tiny_vqa.rows()[:18]]
    assert len(prints) == 1


def test_a_resumed_run_ends_with_the_same_bits(tiny, tmp_path):
    settings = {"epochs": 2, "ema": 0.8, "swa": True, "swa_start": 0.4, "lora_dropout": 0.2}
    go(spec(tiny, settings=settings), tmp_path / "whole")
    with pytest.raises(Stopped):
        go(spec(tiny, settings=settings), tmp_path / "cut", Impatient(3))
    sent = go(spec(tiny, settings=settings), tmp_path / "cut")
    assert any(m.code == "resumed" for m in of_kind(sent, "notice"))
    assert weights(tmp_path / "whole") == weights(tmp_path / "cut")
    whole, cut = (lines(tmp_path / name, "validation") for name in ("whole", "cut"))
    assert whole == cut
    assert "swa.safetensors" in {path.name for path in (tmp_path / "whole").rglob("*")}
    assert "ema.safetensors" not in {path.name for path in (tmp_path / "whole").rglob("*")}
    unused = [m.text for m in of_kind(sent, "notice") if m.code == "ema-unused"]
    assert len(unused) == 1


def test_a_finished_training_read_again_answers_alike(tiny, tmp_path):
    settings = {"ema": 0.8, "swa": True}
    go(spec(tiny, settings=settings), tmp_path / "run")
    before, kept = lines(tmp_path / "run", "validation"), weights(tmp_path / "run")
    (tmp_path / "run/predictions/validation.jsonl").unlink()
    go(spec(tiny, settings=settings), tmp_path / "run")
    assert lines(tmp_path / "run", "validation") == before
    assert weights(tmp_path / "run") == kept


def test_the_answering_weights_are_the_average(tiny, tmp_path):
    plain, averaged = ({"max_steps": 4, "ema": ema} for ema in (0.0, 0.9))
    go(spec(tiny, settings=plain), tmp_path / "plain")
    go(spec(tiny, settings=averaged), tmp_path / "averaged")
    assert weights(tmp_path / "plain") != weights(tmp_path / "averaged")


@pytest.mark.parametrize(
    ("monitor", "values"),
    [
        ("loss", [(1.0, 0.5), (0.5, 0.6), (0.9, 0.7)]),
        ("accuracy", [(1.0, 0.5), (0.9, 0.7), (0.5, 0.6)]),
    ],
)
def test_early_stopping_reloads_the_best_weights(tiny, tmp_path, monkeypatch, monitor, values):
    """Those that were looked at: the average after two epochs, the best by the monitor alone."""
    seen, looked_at = iter(values), []

    def look(self: validation.QuestionValidation) -> tuple[float, float]:
        found = trainable_tensors(self._ready.model)
        looked_at.append({name: tensor.clone() for name, tensor in found.items()})
        return next(seen)

    monkeypatch.setattr(validation.QuestionValidation, "_compute_metrics", look)
    settings = {"epochs": 6, "early_stopping": True, "patience": 1, "ema": 0.5, "monitor": monitor}
    sent = go(spec(tiny, settings=settings), tmp_path / "run")
    assert of_kind(sent, "plan")[0].facts["load_best"] == f"yes, by {monitor}"
    assert any(m.code == "stopped-early" for m in of_kind(sent, "notice"))
    kept = tmp_path / "run" / "checkpoints"
    assert len(json.loads((kept / "epochs.json").read_text())) == 3
    assert not (kept / "best").exists()
    best = load_file(kept / "last/model.safetensors")
    assert best.keys() == looked_at[1].keys()
    assert all(best[name].equal(tensor) for name, tensor in looked_at[1].items())
    assert not all(best[name].equal(tensor) for name, tensor in looked_at[2].items())


def test_a_trained_run_answers_other_questions(tiny, tmp_path):
    go(spec(tiny, settings={"prompt": "Say a letter."}), tmp_path / "01-tiny")
    asked = spec(tiny, model="run:01-tiny", task="evaluate", run_id="02-tiny", subset="asks_more")
    sent = go(asked, tmp_path / "02-tiny")
    assert len(lines(tmp_path / "02-tiny", "asks_more")) == 6
    assert of_kind(sent, "plan")[0].steps == 0
    infer = spec(tiny, model="run:01-tiny", task="infer", run_id="03-tiny", subset="asks_more",
                 settings={"submission_file": "submission_single.csv"})  # fmt: skip
    go(infer, tmp_path / "03-tiny")
    submitted = (tmp_path / "03-tiny/submission_single.csv").read_text().splitlines()
    answers = {line["id"]: line["letter"] for line in lines(tmp_path / "02-tiny", "asks_more")}
    assert dict(row.split(",") for row in submitted[1:]) == answers


def test_a_model_from_scratch_may_not_have_seen_the_pictures(tiny, tmp_path):
    settings = {"base_on": "asks_more", "max_steps": 1}
    sent = go(spec(tiny, model="tiny-scratch", settings=settings), tmp_path / "run")
    assert "trained here on 6 texts: 3 steps" in of_kind(sent, "plan")[0].facts["model"]
    again = go(spec(tiny, model="tiny-scratch", settings=settings), tmp_path / "again")
    assert "(cached)" in of_kind(again, "plan")[0].facts["model"]
    with pytest.raises(EngineError, match="18 pictures of 'asks' are among this run's own"):
        go(spec(tiny, model="tiny-scratch", settings={"base_on": "asks"}), tmp_path / "seen")
    with pytest.raises(EngineError, match="base_on is empty"):
        go(spec(tiny, model="tiny-scratch"), tmp_path / "empty")


def test_a_costing_run_forecasts_and_answers_nothing(tiny, tmp_path):
    settings = {"epochs": 4, "gradient_accumulation_steps": 1, "batch": 2}
    sent = go(spec(tiny, task="probe", settings=settings, probe={"steps": 4}), tmp_path / "run")
    assert of_kind(sent, "forecast")
    assert not of_kind(sent, "metric")
    assert not (tmp_path / "run/predictions").exists()


def test_settings_that_cannot_be_are_refused():
    from pydantic import ValidationError

    from engines.vqa import Params

    for wrong, said in (
        ({"folds": 1}, "leaves nothing to train on"),
        ({"folds": 3, "fold": 3}, "there are folds 0 to 2"),
        ({"early_stopping": True, "validate_every_epochs": 0}, "early_stopping needs validations"),
        ({"load_best": True, "validate_every_epochs": 0}, "load_best needs validations"),
        ({"monitor": "recall"}, "'loss' or 'accuracy'"),
        ({"tta_scales": [9.0]}, "between 0.25 and 4"),
        ({"min_pixels": 9000, "max_pixels": 800}, "more than max_pixels"),
    ):
        with pytest.raises(ValidationError, match=said):
            Params.model_validate(wrong)


def test_out_of_memory_halves_what_was_at_hand():
    params = {"batch": 4, "gradient_accumulation_steps": 4, "eval_batch_size": 6}
    assert catalog.reduce_memory("vqa", params, "train").params == {
        "batch": 2,
        "gradient_accumulation_steps": 8,
    }
    assert catalog.reduce_memory("vqa", params, "generate").params == {"eval_batch_size": 3}
    assert catalog.reduce_memory("vqa", {**params, "eval_batch_size": 1}, "eval") is None


def test_a_question_longer_than_allowed_is_refused_before_anything_is_loaded(tiny, tmp_path):
    asked = spec(tiny, settings={"max_length": 30})
    emit = Emitter()
    with pytest.raises(
        EngineError, match=r"'q\d\d' has \d+ tokens, 4 of them its picture's, and 30"
    ):
        go(asked, tmp_path / "01-tiny", emit)
    assert not [m for m in emit.sent if m.kind == "phase" and m.name in ("load", "train")]


def test_the_longest_sample_is_measured(tiny, tmp_path):
    """At the largest scale of what is only answered; one token more is allowed than needed."""
    settings = {"max_steps": 1, "tta_scales": (2.0,), "evaluate_on": ("asks_more",)}
    sent = go(spec(tiny, settings=settings), tmp_path / "01-tiny")
    said = next(m for m in sent if m.kind == "plan").facts["longest_sample"]
    longest = int(said.split()[0])
    exact = spec(tiny, settings=settings | {"max_length": longest})
    go(exact, tmp_path / "02-tiny")
    with pytest.raises(EngineError, match=f"has {longest} tokens, 16 of them its picture's"):
        go(spec(tiny, settings=settings | {"max_length": longest - 1}), tmp_path / "03-tiny")

"""Whole captioning runs on a small subset: learning, repeating, resuming, refusing."""

import json

import numpy as np
import pytest
import torch

from engines.emitter import Emitter, EngineError, Stopped
from tests.engines import engine_runs, text_encoder
from tests.engines import tiny_captioning as tiny
from tests.engines.engine_runs import weights
from tests.engines.tiny_captioning import go, losses, metric, spec

pytest.importorskip("bitsandbytes")
pytest.importorskip("peft")


folder = engine_runs.subset_fixture(tiny.write)


@pytest.fixture(scope="module")
def learned(folder, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "learned"
    encoder = text_encoder.write(tmp_path_factory.mktemp("bert"), ["a red disc", "the disc is red"])
    settings = {"epochs": 40, "evaluate_train": 18, "validate_every_epochs": 20,
                "scorers": ["meteor", "overlap", "cider", "bertscore"],
                "bert_score": f"path:{encoder}"}  # fmt: skip
    return go(spec(folder, settings=settings), run_dir), run_dir


def test_it_learns_to_look(learned):
    sent, _ = learned
    assert losses(sent)[-1] < 0.5 * metric(sent, "unigram loss", "train").value
    gap = metric(sent, "picture gap", "train")
    assert gap.low > 0
    own, other = (metric(sent, n, "train").value for n in ("loss", "loss_other_picture"))
    assert other > own


def test_the_journal_says_what_was_done(learned):
    sent, run_dir = learned
    plan = next(m for m in sent if m.kind == "plan")
    assert (plan.samples, plan.effective_batch, plan.steps) == (18, 8, 120)
    assert "14 linear layers in NF4" in plan.facts["llm"]
    assert "trained here on" in plan.facts["llm"]
    assert (plan.facts["num_workers"], plan.facts["pin_memory"]) == ("0", "false"), "auto, on a CPU"
    named = plan.facts["trainable"].split("; ")
    assert len(named) == 2 + 14
    counts = [part.rpartition(" ")[2].replace(",", "") for part in named]
    times = [int(part.split(" x ")[0].rpartition(" ")[2]) if " x " in part else 1 for part in named]
    assert sum(int(c) * t for c, t in zip(counts, times, strict=True)) == plan.trainable_parameters
    phases = list(dict.fromkeys(m.name for m in sent if m.kind == "phase"))
    assert phases == ["build", "cache", "import", "load", "warmup", "train", "eval", "save",
                      "generate"]  # fmt: skip
    for artifact in (m for m in sent if m.kind == "artifact"):
        assert (run_dir / artifact.path).stat().st_size == artifact.size
    assert metric(sent, "CIDEr-D (en words)", "says_heldout").n == 6
    bert = metric(sent, "BERTScore F1 (bert-base-multilingual-cased, layer 9)", "says_heldout")
    assert bert.n == 6
    assert 0 < bert.low <= bert.value <= bert.high <= 1 + 1e-6


def test_every_caption_is_kept_with_its_scores(learned):
    sent, run_dir = learned
    text = (run_dir / "predictions/train.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert len(lines) == 18
    names = ("picture gap", "METEOR (exact+stem, en words)", "diversity", "cut at max_new_tokens")
    for name in names:
        mean = sum(line[name] for line in lines) / 18
        assert mean == pytest.approx(metric(sent, name, "train").value)
    red = next(line for line in lines if line["medium"] == "red-disc.png")
    assert red["references"] == ["a red disc", "the disc is red"]
    assert all(line["loss_other_picture"] - line["loss"] == pytest.approx(line["picture gap"])
               for line in lines)  # fmt: skip


def test_looking_in_between_changes_nothing(folder, tmp_path):
    short = {"max_steps": 7, "evaluate_train": 0, "evaluate_on": []}
    looked = go(spec(folder, settings=short), tmp_path / "a")
    go(spec(folder, settings={**short, "validate_every_epochs": 0}), tmp_path / "b")
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    steps = [m for m in looked if m.kind == "step"]
    assert "diversity" not in steps[0].metrics
    assert steps[-1].metrics.keys() == {"train_sample_loss", "diversity"}


def test_what_was_cached_before_changes_nothing(folder, tmp_path, monkeypatch):
    """Loading a tower may draw from torch's generator, as EfficientNet's package does."""
    from engines.torchkit.modeling import image_encoders

    short = {"max_steps": 2, "evaluate_train": 0, "evaluate_on": []}
    go(spec(folder, settings=short), tmp_path / "warm")
    plain = image_encoders.load

    def drawing(*given, **named):
        torch.rand(7)
        return plain(*given, **named)

    monkeypatch.setattr(image_encoders, "load", drawing)
    go(spec(folder, settings={**short, "feature_cache": False}), tmp_path / "cold")
    assert weights(tmp_path / "warm") == weights(tmp_path / "cold")


def test_the_tower_is_given_back_once_its_features_are_kept(folder, tmp_path, monkeypatch):
    from engines.captioning import tasks
    from engines.captioning.models import vision

    towers = []

    class Seen(vision.VisionTower):
        def encode(self, frames):
            towers.append(self)
            return super().encode(frames)

    monkeypatch.setattr(tasks, "VisionTower", Seen)
    short = {"max_steps": 1, "evaluate_train": 0, "evaluate_on": [], "vision_layer": -2}
    for cache in (True, False):
        towers.clear()
        go(spec(folder, settings={**short, "feature_cache": cache}), tmp_path / f"{cache}")
        assert {id(one) for one in towers} == {id(towers[0])}
        assert (towers[0]._model is None) == cache


def test_cached_features_give_the_same_losses_to_the_last_bit(folder, tmp_path):
    short = {"epochs": 2, "evaluate_train": 4, "evaluate_on": [], "batch": 5}
    for dtype in ("float16", "float32"):
        with_cache, without = (
            go(spec(folder, settings={**short, "feature_cache": cache, "feature_dtype": dtype}),
               tmp_path / f"{dtype}{cache}")
            for cache in (True, False)
        )  # fmt: skip
        assert weights(tmp_path / f"{dtype}True") == weights(tmp_path / f"{dtype}False")
        assert metric(with_cache, "loss", "train").value == metric(without, "loss", "train").value


def test_a_stopped_run_continues_as_if_nothing_had_been(folder, tmp_path):
    settings = {"epochs": 3, "evaluate_on": [], "evaluate_train": 0, "early_stopping": True,
                "validation_share": 0.2, "patience": 50}  # fmt: skip
    go(spec(folder, settings=settings), tmp_path / "whole")

    class StopSoon(Emitter):
        def send(self, message):
            super().send(message)
            if message.kind == "step" and message.step >= 4:
                self.stop_requested = True

    with pytest.raises(Stopped):
        go(spec(folder, settings=settings), tmp_path / "part", StopSoon())
    go(spec(folder, settings=settings), tmp_path / "part")
    assert weights(tmp_path / "whole") == weights(tmp_path / "part")
    seen = [json.loads((tmp_path / n / "checkpoints/epochs.json").read_text())
            for n in ("whole", "part")]  # fmt: skip
    assert seen[0] == seen[1]


def test_early_stopping_keeps_the_best_weights(folder, tmp_path):
    settings = {"epochs": 60, "evaluate_on": [], "evaluate_train": 0, "early_stopping": True,
                "validate_on": "says_heldout", "patience": 2, "lr": 3e-2}  # fmt: skip
    sent = go(spec(folder, settings=settings), tmp_path / "run")
    notice = next(m for m in sent if m.kind == "notice" and m.code == "stopped-early")
    seen = json.loads((tmp_path / "run/checkpoints/epochs.json").read_text())
    assert len(seen) < 60
    best = min(seen, key=lambda one: one["loss"])
    assert f"epoch {best['epoch']} (loss {best['loss']:.3f})" in notice.text
    assert best["epoch"] == len(seen) - 2
    again = go(spec(folder, "run:run", task="evaluate", subset="says_heldout"), tmp_path / "again")
    assert metric(again, "loss", "says_heldout").value == pytest.approx(best["loss"])
    trained = sum(m.steps for m in sent if m.kind == "epoch")
    plan = next(m for m in again if m.kind == "plan")
    assert f", {trained} steps, seed" in plan.facts["trained_by"], "not the planned ones"
    assert not (tmp_path / "run/checkpoints/best").exists()


def test_the_last_epoch_is_evaluated_beside_the_best(folder, tmp_path):
    """Both are the validation's own losses of these epochs; a resumed run evaluates both again."""
    settings = {"epochs": 40, "lr": 3e-2, "early_stopping": True, "patience": 1,
                "validate_on": "says_heldout", "evaluate_on": ["says_heldout"],
                "evaluate_train": 0, "evaluate_last": True, "scorers": ["overlap"]}  # fmt: skip
    asked = spec(folder, settings=settings)
    sent = go(asked, tmp_path / "run")
    *_, best, last = json.loads((tmp_path / "run/checkpoints/epochs.json").read_text())
    assert last["loss"] > best["loss"]
    for name, epoch in (("loss", best), ("loss[last epoch]", last)):
        assert metric(sent, name, "says_heldout").value == pytest.approx(epoch["loss"])
    names = [m.name for m in sent if m.kind == "metric"]
    assert {f"{name}[last epoch]" for name in names if "[" not in name} < set(names)
    cases = tmp_path / "run/predictions/last-epoch/says_heldout.jsonl"
    lines = [json.loads(line) for line in cases.read_text().splitlines()]
    mean = sum(line["diversity[last epoch]"] for line in lines) / 6
    assert mean == pytest.approx(metric(sent, "diversity[last epoch]", "says_heldout").value)
    assert not (tmp_path / "run/checkpoints/last-epoch").exists()

    class StopsInEvaluation(Emitter):
        def phase(self, name, detail=""):
            if name == "generate" and detail == "says_heldout":
                raise Stopped

    emit = StopsInEvaluation()
    with pytest.raises(Stopped):
        go(asked, tmp_path / "stopped", emit)
    again = go(asked, tmp_path / "stopped")
    for name in ("loss", "loss[last epoch]"):
        assert metric(again, name, "says_heldout").value == metric(sent, name, "says_heldout").value
    with pytest.raises(ValueError, match="evaluate_last needs load_best or early_stopping"):
        spec(folder, settings={"evaluate_last": True})


def test_early_stopping_and_the_best_checkpoint_go_by_the_monitored_score(folder, tmp_path):
    from tests.fixtures import thin_siglip

    thin_siglip.write(tmp_path / "judge")
    settings = {"epochs": 12, "evaluate_on": [], "evaluate_train": 0, "early_stopping": True,
                "validate_on": "says_heldout", "patience": 2, "lr": 3e-2, "monitor": "siglip",
                "siglip": f"path:{tmp_path / 'judge'}", "min_delta": 0.0,
                "monitor_where": "diversity >= 0 and meteor >= 0"}  # fmt: skip
    sent = go(spec(folder, settings=settings), tmp_path / "run")
    seen = json.loads((tmp_path / "run/checkpoints/epochs.json").read_text())
    facts = next(m for m in sent if m.kind == "plan").facts
    where = "where diversity >= 0 and meteor >= 0"
    assert facts["monitor"] == f"siglip, higher is better, {where}"
    assert all(row.keys() == {"epoch", "loss", "diversity", "siglip", "meteor"} for row in seen)
    assert facts["load_best"] == "yes, by siglip"
    best = max(seen, key=lambda one: one["siglip"])
    codes = [m.code for m in sent if m.kind == "notice"]
    assert ("stopped-early" in codes) == (len(seen) < 12)
    assert len(seen) == min(12, best["epoch"] + 2)
    curve = [m.metrics for m in sent if m.kind == "step"]
    assert curve[-1]["validation_siglip"] == pytest.approx(seen[-2]["siglip"], abs=1e-6)
    again = go(spec(folder, "run:run", task="evaluate", subset="says_heldout"), tmp_path / "again")
    assert metric(again, "loss", "says_heldout").value == pytest.approx(best["loss"])


def test_a_monitor_that_cannot_be_computed_is_refused_before_training(folder, tmp_path):
    settings = {"early_stopping": True, "validate_on": "says_heldout", "monitor": "siglip"}
    emit = Emitter()
    with pytest.raises(EngineError, match="monitor = siglip cannot be computed here"):
        go(spec(folder, settings=settings), tmp_path / "run", emit)
    assert not [m for m in emit.sent if m.kind == "step"]


def test_a_trained_run_can_be_evaluated(folder, learned):
    sent, run_dir = learned
    asked = spec(folder, "run:learned", task="evaluate", subset="says_heldout",
                 settings={"projector": "mlp2x"})  # fmt: skip
    again = go(asked, run_dir.parent / "again")
    for name in ("loss", "picture gap", "diversity"):
        assert metric(again, name, "says_heldout").value == metric(sent, name, "says_heldout").value
    with pytest.raises(EngineError, match="never trained"):
        go(spec(folder, task="evaluate"), run_dir.parent / "never")
    with pytest.raises(EngineError, match="left no checkpoint"):
        go(spec(folder, "run:../../learned", task="evaluate"), run_dir.parent / "never")


def test_a_trained_run_captions_media_that_have_no_captions(folder, learned):
    _, run_dir = learned
    asked = spec(folder, "run:learned", task="infer", subset="says_nothing",
                 settings={"projector": "mlp2x"})  # fmt: skip
    said = go(asked, run_dir.parent / "infer")
    (file,) = (m for m in said if m.kind == "artifact")
    assert (file.role, file.path) == ("predictions", "predictions/says_nothing.jsonl")
    text = (run_dir.parent / "infer" / file.path).read_text()
    lines = {line["medium"]: line for line in map(json.loads, text.splitlines())}
    assert sorted(len(line["references"]) for line in lines.values()) == [0, 0, 0, 2, 2]
    known = (run_dir / "predictions/train.jsonl").read_text().splitlines()
    before = {line["medium"]: line["caption"] for line in map(json.loads, known)}
    assert {name: line["caption"] for name, line in lines.items()} == {
        name: before[name] for name in lines
    }, "what the training's own evaluation says of them"
    names = [m.name for m in said if m.kind == "metric"]
    assert names[0] == "diversity"
    assert "loss" not in names
    assert metric(said, "coverage", "says_nothing").value == 1
    with pytest.raises(EngineError, match="never trained"):
        go(spec(folder, task="infer", subset="says_nothing"), run_dir.parent / "never")
    asked = spec(folder, "run:learned", task="evaluate", subset="says_heldout",
                 settings={"projector": "mlp2x", "evaluate_on": ["says_nothing"]})  # fmt: skip
    assert metric(go(asked, run_dir.parent / "some"), "loss", "says_nothing").n == 2


def test_a_collapsed_model_is_flagged_at_the_first_look(folder, tmp_path):
    settings = {"epochs": 8, "evaluate_on": [], "evaluate_train": 0, "validate_every_epochs": 4}
    sent = go(spec(folder, subset="says_the_same", settings=settings), tmp_path)
    first = next(m for m in sent if m.kind == "notice" and m.code == "mode-collapse")
    assert "epoch 4: 0.04 of 24 captions are unique, 100% are 'a red disc'" in first.text
    assert first.t < [m for m in sent if m.kind == "step"][-1].t


@pytest.mark.parametrize(
    "settings",
    [
        {
            "projector": "c_abstractor",
            "gradient_checkpointing": True,
            "gradient_accumulation_steps": 2,
            "batch": 4,
        },
        {"projector": "perceiver", "precision": "auto", "num_workers": 2, "schedule": "constant"},
        {"projector": "mlp2x", "quantize": "none", "lora_rank": 0, "max_grad_norm": 0.0},
        {"feature_cache": False, "precision": "auto", "gradient_checkpointing": True},
        {"vision_layer": -2, "cls": True, "prompt": "say it", "projector_lr": 1e-3},
        {"projector": "cross_attention", "use_dora": True, "gradient_checkpointing": True},
        {
            "double_quant": False,
            "lora_targets": ["q_proj"],
            "fused": False,
            "compile": False,
            "merge_lora": True,
        },
    ],
)
def test_settings_work_together(folder, tmp_path, settings):
    short = {"max_steps": 3, "evaluate_train": 4, "evaluate_on": [], **settings}
    sent = go(spec(folder, settings=short), tmp_path)
    assert all(0 < x < 20 for x in losses(sent))
    facts = next(m for m in sent if m.kind == "plan").facts
    assert facts["projector"].startswith(settings.get("projector", "linear"))
    if settings.get("quantize") == "none":
        assert "whole" in facts["llm"]
        assert "lora" not in facts["trainable"]
    if "lora_targets" in settings:
        assert "k_proj" not in facts["trainable"]
    assert np.isfinite(metric(sent, "loss", "train").value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"subset": "says_trian"}, "says_trian"),
        ({"settings": {"projector": "c_abstractor", "projector_tokens": 5}}, "square"),
        ({"settings": {"lora_targets": ["q_porj"]}}, "no linear layer 'q_porj'"),
        ({"settings": {"vision": "somewhere"}}, "neither path:/abs/dir nor hub:"),
        ({"settings": {"llm": "hub:org/absent"}}, "hf download org/absent"),
        ({"settings": {"data_root": "/nonexistent"}}, "/nonexistent"),
        ({"settings": {"siglip": "hub:org/absent", "scorers": ["siglip"]}}, "siglip = hub:org/ab"),
        ({"settings": {"bert_score": "hub:org/absent", "scorers": ["bertscore"]}},
         "bert_score = hub:org/absent: .*`hf download org/absent"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence(folder, tmp_path, changes, words):
    with pytest.raises(EngineError, match=words) as caught:
        go(spec(folder, **changes), tmp_path)
    assert "\n" not in str(caught.value)


def test_flops_and_tokens_are_counted_and_utilization_says_why_not(learned):
    sent, _ = learned
    timing = next(m for m in sent if m.kind == "timing")
    plan = next(m for m in sent if m.kind == "plan")
    assert timing.methods["model_flops_per_sample"] == "model FLOPs 1, 1 steps counted"
    assert timing.model_flops_per_sample > 2 * plan.parameters
    assert timing.tokens_per_second > 8 * timing.samples_per_second
    assert timing.reasons["mfu"] == timing.reasons["hfu"] == "a CPU has no peak in the table"

"""Whole runs of the retrieval engine on a small subset: learning, repeating, resuming, refusing."""

import json
import math
from pathlib import Path

import pytest
import torch

from engines import model_catalog
from engines.emitter import Emitter, EngineError, Stopped
from engines.protocol import RunSpec
from engines.retrieval import Params, run

STEPS = 4


def spec(tiny: Path, model: str = "pico", **changes) -> RunSpec:
    settings = dict(model_catalog.load(model).settings)
    settings |= {
        "data_root": str(tiny / "data"), "threads": 1, "timing_warmup_steps": 1,
        **changes.pop("settings", {}),
    }  # fmt: skip
    base = {
        "suite": "s", "run_id": "01-tiny", "engine": "retrieval", "subset": "tiny_train",
        "model": model, "cache_root": str(tiny / "cache"),
        "params": Params.model_validate(settings).model_dump(mode="json"),
    }  # fmt: skip
    return RunSpec.model_validate({**base, **changes})


def go(spec: RunSpec, run_dir: Path, emit: Emitter | None = None) -> list:
    emit = emit or Emitter()
    run_dir.mkdir(parents=True, exist_ok=True)
    run(spec, emit, run_dir)
    emit.close()
    return emit.sent


def losses(sent: list) -> list[float]:
    return [m.loss for m in sent if m.kind == "step"]


def metric(sent: list, name: str) -> float:
    return next(m.value for m in sent if m.kind == "metric" and m.name == name)


@pytest.fixture(scope="module")
def learned(tiny, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "learned"
    return go(spec(tiny, settings={"epochs": 30}), run_dir), run_dir


def test_it_learns_what_needs_both_modalities(learned):
    sent, _ = learned
    found = losses(sent)
    assert found[-1] < 0.2 * found[0]
    both, text, image = (
        metric(sent, f"recall@1{suffix}") for suffix in ("", "[text only]", "[image only]")
    )
    assert both >= 0.5, "new pairs of known things and kinds, out of 144 passages"
    assert both > text
    assert both > image
    assert metric(sent, "recall@1[chance]") == pytest.approx(2 / 144)
    none_of_five = math.prod([(142 - i) / (144 - i) for i in range(5)])
    assert metric(sent, "recall@5[chance]") == pytest.approx(1 - none_of_five)


def test_the_journal_of_a_run_is_complete(learned):
    sent, run_dir = learned
    kinds = {m.kind for m in sent}
    assert {"hello", "phase", "plan", "step", "timing", "memory", "metric", "artifact"} <= kinds
    plan = next(m for m in sent if m.kind == "plan")
    assert (plan.samples, plan.effective_batch, plan.steps) == (60, 16, 120)
    assert plan.trainable_parameters == plan.parameters > 10_000
    assert plan.facts["layers"] == "text own output; vision own output"
    assert (plan.facts["num_workers"], plan.facts["pin_memory"]) == ("0", "false"), "auto, on a CPU"
    assert plan.subset_fingerprint
    steps = [m for m in sent if m.kind == "step"]
    assert sum(s.samples for s in steps) == 30 * 60
    assert steps[-1].metrics.keys() == {"r@1", "duplicate_rate", "temperature"}
    timing = next(m for m in sent if m.kind == "timing")
    assert timing.epoch_steps == 4
    assert timing.time_to_first_step > 0
    assert timing.samples_per_second > 0
    phases = [m.name for m in sent if m.kind == "phase"]
    order = [
        "build",
        "cache",
        "import",
        "load",
        "warmup",
        "train",
        "save",
        "eval",
        "encode",
        "search",
    ]
    assert list(dict.fromkeys(phases)) == order
    times = [m.t for m in sent]
    assert times == sorted(times)
    for artifact in (m for m in sent if m.kind == "artifact"):
        assert (run_dir / artifact.path).stat().st_size == artifact.size


def test_scores_of_every_query_are_kept(learned):
    sent, run_dir = learned
    lines = [
        json.loads(line)
        for line in (run_dir / "predictions/tiny_val.jsonl").read_text().splitlines()
    ]
    assert len(lines) == 12
    mean = sum(line["recall@1"] for line in lines) / 12
    assert mean == pytest.approx(metric(sent, "recall@1"))
    for line in lines:
        assert (line["rank"] == 1) == (line["recall@1"] == 1.0)
    trec = (run_dir / "predictions/tiny_val.trec").read_text().splitlines()
    assert len(trec) == 12 * 144, "the whole corpus: it is smaller than the depth"
    query, q0, passage, rank, score, _ = trec[0].split()
    assert (q0, rank) == ("Q0", "1")
    assert passage == lines[0]["top"][0].replace(" ", "_")
    assert query == lines[0]["id"]
    assert -1.001 <= float(score) <= 1.001


def test_equal_runs_learn_bitwise_equal_weights(tiny, tmp_path):
    """Weights, as losses come in windows whose ends depend on the clock."""

    def learned(folder: str, seed: int = 42, **settings) -> bytes:
        small = {"max_steps": STEPS, "evaluate_on": [], **settings}
        go(spec(tiny, settings=small, seed=seed), tmp_path / folder)
        return (tmp_path / folder / "checkpoints/last/model.safetensors").read_bytes()

    first = learned("a")
    assert first == learned("b", num_workers=2)
    assert first != learned("c", seed=43)


def test_a_stopped_run_continues_as_if_nothing_had_been(tiny, tmp_path):
    settings = {"max_steps": 12, "evaluate_on": [], "checkpoint_every": 0}
    go(spec(tiny, settings=settings), tmp_path / "whole")

    class StopAtFive(Emitter):
        def send(self, message):
            super().send(message)
            if message.kind == "step" and message.step >= 1:
                self.stop_requested = True

    with pytest.raises(Stopped):
        go(spec(tiny, settings=settings), tmp_path / "part", StopAtFive())
    saved = list((tmp_path / "part" / "checkpoints").glob("step-*"))
    assert len(saved) == 1
    go(spec(tiny, settings=settings), tmp_path / "part")
    final = "checkpoints/last/model.safetensors"
    whole, part = ((tmp_path / name / final).read_bytes() for name in ("whole", "part"))
    assert whole == part
    assert not list((tmp_path / "part" / "checkpoints").glob("step-*"))


def test_a_trained_run_can_be_evaluated(tiny, learned, tmp_path):
    _, run_dir = learned
    asked = spec(
        tiny, "run:learned", task="evaluate", subset="tiny_val",
        settings={"image_size": 64, "precision": "fp32"},
    )  # fmt: skip
    sent = go(asked, run_dir.parent / "again")
    assert metric(sent, "recall@1") == metric(learned[0], "recall@1")
    assert next(m for m in sent if m.kind == "plan").steps == 0
    with pytest.raises(EngineError, match="left no checkpoint"):
        go(spec(tiny, "run:nothing", task="evaluate"), run_dir.parent / "never")
    with pytest.raises(EngineError, match="left no checkpoint"):
        go(spec(tiny, "run:../../learned", task="evaluate"), run_dir.parent / "never")


@pytest.mark.parametrize(
    "settings",
    [
        {"layers": [3, 7, 11]},
        {"gradient_accumulation_steps": 2, "batch": 8, "ema": 0.9},
        {"precision": "bf16", "modality_dropout": 0.5, "max_grad_norm": 0.0},
        {"use_instruction": False, "fused": False, "weight_decay": 0.0, "num_workers": 1},
        {"image_size": 48, "evaluate_modalities": ["both"], "pseudo_recall": False},
    ],
)
def test_settings_work_together(tiny, tmp_path, settings):
    sent = go(spec(tiny, settings={"max_steps": STEPS, **settings}), tmp_path)
    assert all(0 < x < 20 for x in losses(sent))
    facts = next(m for m in sent if m.kind == "plan").facts
    if "layers" in settings:
        assert facts["layers"] == "3,7,11 -> text 0,1; vision 0,1"
    if "gradient_accumulation_steps" in settings:
        assert "accumulation does not add any" in facts["negatives"]
    assert 0 <= metric(sent, "recall@50") <= 1


def test_an_unreadable_picture_is_counted_and_the_run_goes_on(tiny, write_subset, tmp_path):
    folder = tmp_path / "hurt"
    write_subset(folder)
    (folder / "data/images/red-disc.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    asked = spec(folder, settings={"max_steps": 2, "evaluate_on": []})
    sent = go(asked, tmp_path / "run")
    notices = [m for m in sent if m.kind == "notice" and m.code == "images-skipped"]
    assert len(notices) == 1
    assert "red-disc.png" in notices[0].text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"subset": "tiny_trian"}, "tiny_trian"),
        ({"settings": {"evaluate_on": ["tiny_vla"]}}, "tiny_vla"),
        ({"settings": {"layers": [12]}}, "layers = \\[12\\]"),
        ({"settings": {"vision_layers": [2]}}, "vision tower has 2 blocks and takes 0 to 1"),
        ({"settings": {"data_root": "/nonexistent"}}, "/nonexistent"),
        ({"devices": (0,)}, "torch sees no CUDA device"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="one case is about having no GPU")
def test_mistakes_are_one_sentence(tiny, tmp_path, changes, words):
    with pytest.raises(EngineError, match=words) as caught:
        go(spec(tiny, **changes), tmp_path)
    assert "\n" not in str(caught.value)

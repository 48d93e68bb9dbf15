"""The memory forecast against what a real step allocates, and the tracker against tensors."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import nn

from engines.memory_query import MAPPED, OTHERS, STEP, MemoryEstimate
from engines.torchkit.memory import allocation_tracker, fake_modules
from engines.torchkit.modeling import quantize
from tests.engines.vqa_step import Shape, measured

SHAPES = (
    Shape("4-bit, checkpointing", {"long_side": 280, "gradient_checkpointing": True}),
    Shape("whole", {"long_side": 280, "gradient_checkpointing": False, "quantize": "none"}),
    Shape("4-bit, half where the CPU has it", {"long_side": 280, "precision": "auto"}),
    Shape(
        "accumulation, EMA, rank 64",
        {"long_side": 168, "gradient_accumulation_steps": 2, "ema": 0.99, "lora_rank": 64},
        sizes={"num_hidden_layers": 6},
    ),
    Shape("long text, batch 3", {"long_side": 112, "batch": 3}, text=300),
    Shape("prediction", {"long_side": 280, "eval_batch_size": 6}, trains=False),
    Shape("prediction, turned", {"long_side": 280, "tta_options": True}, trains=False),
    Shape("tower", {"long_side": 280, "feature_cache": False}),
)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_forecast_is_what_a_real_step_allocates_within_a_tenth(shape, tmp_path):
    from engines.vqa.memory import estimate

    pytest.importorskip("bitsandbytes")
    need = estimate.estimate_model(shape.want(), shape.config(), "test")
    said = sum(need.phases["train" if shape.trains else "predict"].values())
    real = measured(shape, tmp_path)
    assert said == pytest.approx(real, rel=0.1)


def test_ledger_counts_what_lives_and_forgets_what_died():
    with allocation_tracker.fake_tensors(), allocation_tracker.AllocationTracker() as tracker:
        kept = torch.zeros(1000)
        with tracker.part("scratch"):
            brief = torch.zeros(3000)
            view = brief[10:]  # shares its storage: nothing more
        assert tracker.total == 16_000
        assert dict(+tracker.parts) == {"activations": 4000, "scratch": 12_000}
        del brief
        gc.collect()
        assert tracker.total == 16_000  # the view holds it
        del view
        gc.collect()
        assert tracker.total == 4000
        assert tracker.peak == allocation_tracker.Peak(
            16_000, {"activations": 4000, "scratch": 12_000}
        )
        tracker.assign([kept], "weights")
        tracker.reset_peak()
        assert tracker.peak == allocation_tracker.Peak(4000, {"weights": 4000})


def test_cuda_blocks_are_rounded_up():
    with (
        allocation_tracker.fake_tensors(),
        allocation_tracker.AllocationTracker(allocation_tracker.CUDA_ROUNDING) as tracker,
    ):
        kept = [torch.zeros(1), torch.zeros(129)]
        assert tracker.total == 512 + 1024
        del kept


@pytest.mark.parametrize("double", [True, False])
def test_packed_layer_has_the_bytes_of_bitsandbytes_own(double):
    bnb = pytest.importorskip("bitsandbytes")
    real = bnb.nn.Linear4bit(
        384, 200, bias=True, compute_dtype=torch.float32, compress_statistics=double,
        quant_type="nf4",
    ).to("cpu")  # fmt: skip
    with allocation_tracker.fake_tensors(), allocation_tracker.AllocationTracker() as tracker:
        model = nn.Sequential(nn.Linear(384, 200))
        before = tracker.total
        assert before == (384 * 200 + 200) * 4
        fake_modules.pack_four_bit(model, lambda _: True, torch.float32, double=double)
        gc.collect()
        held = tracker.total
    assert held == quantize.weight_bytes(real)


@pytest.mark.parametrize(
    ("hub", "parameters"),
    [
        ("Qwen/Qwen2.5-VL-3B-Instruct", 3_754_622_976),
        ("Qwen/Qwen2.5-VL-7B-Instruct", 8_292_166_656),
        ("Qwen/Qwen3-VL-2B-Instruct", 2_127_532_032),
        ("Qwen/Qwen3-VL-4B-Instruct", 4_437_815_808),
        ("Qwen/Qwen3-VL-8B-Instruct", 8_767_123_696),
        ("HuggingFaceTB/SmolVLM2-256M-Video-Instruct", 256_484_928),
        ("HuggingFaceTB/SmolVLM2-500M-Video-Instruct", 507_482_304),
        ("OpenGVLab/InternVL3_5-1B-HF", 1_060_897_792),
    ],
)
def test_shipped_sizes_have_the_parameters_of_the_published_files(hub, parameters):
    from engines.model_catalog import ModelEntry
    from engines.torchkit.memory.fake_training_step import TrainingOptions
    from engines.vqa.memory import estimate, model_from_config

    config, _ = model_from_config.read_config(ModelEntry(name="it", family="vlm", hub=hub))
    with torch.device("meta"):
        made = estimate.build_model(config, TrainingOptions())
    assert sum(p.numel() for p in made.parameters()) == parameters


def test_a_model_from_scratch_has_the_parameters_that_are_made():
    from engines.model_catalog import ModelEntry
    from engines.torchkit.memory import known_configs
    from engines.vqa.memory import estimate, model_from_config
    from engines.vqa.nano import model
    from tests.engines.tiny_vqa import SIZES, rows

    processor = model.build_processor([" ".join(row.values()) for row in rows()], 400, 14)
    made = model.build_model(processor, SIZES)
    sizes = SIZES | {"vocabulary": len(processor.tokenizer)}
    entry = ModelEntry(name="small", engines=("vqa",), family="vlm", architecture=sizes)
    config, source = model_from_config.read_config(entry)
    assert source == known_configs.SCRATCH
    need = estimate.estimate_model(
        Shape("scratch", {"quantize": "none", "long_side": 56, "feature_cache": False}).want(),
        config, source,
    )  # fmt: skip
    parts = need.phases["train"]
    names = ("vision tower", "language model", "embeddings, head, norms")
    said = sum(parts[name] for name in names)
    assert said == pytest.approx(sum(p.numel() for p in made.parameters()) * 4, rel=0.01)
    assert "base" in need.facts["left out"]


@pytest.mark.parametrize("sizes", [{"patch": 16}, {"vision_depth": 1}, {"vision_depth": 3}])
def test_towers_of_other_sizes_are_simulated(sizes):
    from engines.model_catalog import ModelEntry
    from engines.vqa.memory import estimate, model_from_config
    from tests.engines.tiny_vqa import SIZES

    entry = ModelEntry(name="other", family="vlm", architecture=SIZES | {"vocabulary": 400} | sizes)
    config, source = model_from_config.read_config(entry)
    settings = {"quantize": "none", "long_side": 96, "feature_cache": False}
    want = Shape("other", settings).want()
    need = estimate.estimate_model(want, config, source)
    tokens = (96 // (2 * sizes.get("patch", 14))) ** 2
    assert f"{tokens} of them the picture's" in need.facts["longest sample"]
    assert all(need.phases[phase]["vision tower"] > 0 for phase in need.phases)
    want = Shape("kept", {"quantize": "none", "long_side": 96, "batch": 64}).want()
    need = estimate.estimate_model(want, config, source)
    assert not any("vision tower" in parts for parts in need.phases.values())


@pytest.mark.parametrize(
    "settings",
    [
        {"quantize": "none", "gradient_checkpointing": False, "feature_cache": False},
        {
            "quantize": "none",
            "gradient_checkpointing": True,
            "gradient_accumulation_steps": 1,
            "lora_rank": 64,
            "batch": 1,
        },
    ],
    ids=["activations of all layers", "gradients of all layers"],
)
def test_shallow_models_say_what_the_whole_one_needs(settings, monkeypatch):
    from engines.model_catalog import ModelEntry
    from engines.torchkit.memory import depth_extrapolation
    from engines.vqa.memory import estimate, model_from_config
    from tests.engines.tiny_vqa import SIZES

    sizes = SIZES | {"vocabulary": 400, "layers": 12}
    config, source = model_from_config.read_config(
        ModelEntry(name="deep", family="vlm", architecture=sizes)
    )
    want = Shape("deep", {"long_side": 56, **settings}).want()
    seen: list[int] = []
    measured_at = estimate.measure_phases

    def counted(asked, cut, *rest):
        seen.append(cut["text_config"]["num_hidden_layers"])
        return measured_at(asked, cut, *rest)

    monkeypatch.setattr(estimate, "measure_phases", counted)
    found = estimate.estimate_model(want, config, source)
    assert seen == [2, 3, 4]
    monkeypatch.setattr(depth_extrapolation, "LEAST", 100)
    whole = estimate.estimate_model(want, config, source)
    assert seen[3:] == [12]
    assert found.phases == whole.phases
    assert (found.host, found.facts) == (whole.host, whole.facts)


def test_a_simulation_that_fails_ends_no_other(monkeypatch):
    from engines import memory_estimator
    from engines.vqa.memory import estimate

    def fails(_):
        raise RuntimeError("shape '[24, 4, -1]' is invalid\nmore")

    want = Shape("any", {"nproc_per_node": 3}).want().model_copy(update={"model": "nano-qwen-vl"})
    monkeypatch.setattr(estimate, "estimate_memory", fails)
    assert memory_estimator.answer_query(want).problem == (
        "its step cannot be simulated (RuntimeError: shape '[24, 4, -1]' is invalid)"
    )
    host = {"Python": 10, MAPPED: 100, STEP: 5}
    monkeypatch.setattr(estimate, "estimate_memory", lambda _: MemoryEstimate(host=host))
    assert memory_estimator.answer_query(want).host == {**host, OTHERS: 2 * 15}
    small = want.model_copy(update={"engine": "probe", "model": "none"})
    assert "cannot be forecast yet" in memory_estimator.answer_query(small).problem
    several = {**want.params, "nnodes": 4}
    on_each = memory_estimator.answer_query(want.model_copy(update={"params": several}))
    assert on_each.host == {**host, OTHERS: 2 * 15}, "of one node"


def test_processes_are_counted_for_tasks_that_they_share():
    """Ranks of VQA answer together; those of the other engines only train."""
    from engines import memory_estimator

    want = Shape("any", {"nproc_per_node": 3}).want()
    for engine, trains, ranks in (("vqa", True, 3), ("vqa", False, 3), ("retrieval", True, 3),
                                  ("retrieval", False, 1), ("captioning", False, 1)):  # fmt: skip
        query = want.model_copy(update={"engine": engine, "trains": trains})
        assert memory_estimator.count_local_ranks(query) == ranks


def test_a_half_described_model_is_a_sentence():
    from engines.emitter import EngineError
    from engines.model_catalog import ModelEntry
    from engines.vqa.memory import model_from_config

    entry = ModelEntry(name="half", family="vlm", architecture={"vocabulary": 100})
    with pytest.raises(EngineError, match="'half': its architecture lacks width"):
        model_from_config.read_config(entry)

"""The memory forecast of retrieval against what a real step and a real search allocate."""

from __future__ import annotations

from unittest import mock

import pytest
import torch

from engines import model_catalog
from engines.emitter import EngineError
from engines.memory_query import MemoryQuery
from engines.model_catalog import ModelEntry
from engines.retrieval import Params
from engines.retrieval.index import exact
from engines.retrieval.memory import estimate, evaluation_step, model_from_config, training_step
from engines.retrieval.models import factory, tokenizer
from engines.retrieval.models.encoder import count_parameters
from tests.engines import allocations, families, retrieval_step
from tests.engines.retrieval_step import PASSAGES, Shape, measured, said

RECURRENT = {"layer_fusion": "recurrent", "layers": (3, 7, 11), "fusion_width": 64,
             "fusion_queries": 8, "late_width": 32}  # fmt: skip
SHAPES = (
    Shape("accumulation, EMA", "clip", {"batch": 32, "gradient_accumulation_steps": 2,
                                        "ema": 0.99}),
    Shape("master weights", "clip",
          {"batch": 64, "layers": (3, 7, 11), "precision": "bf16",
           "mixed_precision": "master_weights"}),
    Shape("late", "clip", {"batch": 16, "scoring": "late"}),
    Shape("recurrent, frozen towers", "clip", {**RECURRENT, "freeze_towers": True}),
    Shape("recurrent, late, GradCache", "clip",
          {**RECURRENT, "scoring": "late", "grad_cache_chunk": 8}),
    Shape("siglip, sigmoid loss", "siglip", {"batch": 64, "loss": "sigmoid"}),
    Shape("siglip2, naflex", "naflex", {"batch": 64}),
    Shape("open_clip, fastvit", "fastvit", {"batch": 8}),
    Shape("open_clip, its own vit", "plain-vit", {"batch": 64}),
    Shape("open_clip, timm vit", "timm-vit", {"batch": 16}),
    Shape("cached features", "frozen", {"batch": 256}),
    Shape("evaluation", "clip", {"eval_batch_size": 256}, phase="predict"),
    Shape("evaluation, late", "siglip", {"eval_batch_size": 64, "scoring": "late"},
          phase="predict"),
    Shape("evaluation, recurrent", "clip", {**RECURRENT, "eval_batch_size": 64}, phase="predict"),
    Shape("evaluation, open_clip", "plain-vit", {"eval_batch_size": 64}, phase="predict"),
)  # fmt: skip
PACKAGED = "efficientnet_lite_pytorch"
PUBLISHED = {
    "tinyclip-61m": 115_382_145,
    "clip-vit-l14": 427_616_513,
    "siglip-b16": 203_155_970,
    "siglip2-b16": 375_187_970,
}
"""Parameters of the published files."""


def asked(
    model: str, *, trains: bool = True, subsets: tuple[str, ...] = (), **settings
) -> MemoryQuery:
    params = Params(**{**model_catalog.load(model).settings, **settings}).model_dump(mode="json")
    return MemoryQuery(engine="retrieval", model=model, params=params, trains=trains, target="cpu",
                subsets=subsets)  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_forecast_is_what_a_real_step_allocates_within_a_tenth(shape, tmp_path):
    if shape.family == "frozen":
        pytest.importorskip(PACKAGED)
    need = estimate.estimate_memory(shape.want(tmp_path))
    assert said(need, shape) == pytest.approx(measured(shape, tmp_path), rel=0.1)


def test_the_first_chunks_stand_for_all(monkeypatch):
    query = asked("clip-nano", batch=40, grad_cache_chunk=8, evaluate_on=())
    calls, whole = [], training_step.checkpoint
    monkeypatch.setattr(
        training_step, "checkpoint", lambda *a, **k: calls.append(1) or whole(*a, **k)
    )
    few = estimate.estimate_memory(query)
    number = len(calls)
    monkeypatch.setattr(training_step, "SIMULATED_CHUNKS", 100)
    every = estimate.estimate_memory(query)
    assert 2 * (len(calls) - number) == 5 * number
    assert sum(few.phases["train"].values()) == pytest.approx(
        sum(every.phases["train"].values()), rel=0.002
    )


@pytest.mark.parametrize(("queries", "passages", "depth"), [(2000, 3000, 500), (600, 20_000, 500)])
def test_blocks_of_a_search_are_hardly_more_than_it_takes(queries, passages, depth, monkeypatch):
    """By torch's own sorting, as on a GPU; plain, and by thresholds."""
    monkeypatch.setattr(exact, "_uses_torch", lambda _: True)
    found = [torch.nn.functional.normalize(torch.randn(n, 16)) for n in (queries, passages)]
    exact.top_k(*found, depth)
    real = allocations.peak(lambda: exact.top_k(*found, depth))
    assert (
        0.98 * real
        <= evaluation_step.count_block_bytes(queries, passages, depth, "cpu")
        <= 1.15 * real
    )


@pytest.mark.parametrize("family", families.FOLDERS)
def test_a_model_without_weights_has_the_parameters_of_the_one_with_them(family, tmp_path):
    families.FOLDERS[family](tmp_path)
    entry = model_catalog.load(f"path:{tmp_path}")
    params = Params(**entry.settings, loss="sigmoid")
    words = tokenizer.load_model_tokenizer(tmp_path, entry.family)
    shape = model_from_config.find_model_shape(entry, params)
    assert shape.length == words.length
    counts = []
    for model in (factory.from_folder(entry, tmp_path, words, params), shape.build()):
        factory.configure_model(model, entry, params, words)
        counts.append(count_parameters(model))
    assert counts[0] == counts[1]


@pytest.mark.parametrize("name", PUBLISHED)
def test_shipped_sizes_have_the_published_parameters(name):
    entry = model_catalog.load(name).model_copy(update={"path": ""})
    with mock.patch.object(model_catalog, "weights_folder", return_value=None):
        shape = model_from_config.find_model_shape(entry, Params())
    bias = 1 if entry.family == "siglip" else 0  # not with the softmax loss
    assert count_parameters(shape.build())[0] == PUBLISHED[name] - bias


def test_open_clip_knows_the_sizes_of_its_own_models():
    pytest.importorskip("open_clip")
    for name in (
        name for name in model_catalog.names("retrieval") if name.startswith("mobileclip")
    ):
        entry = model_catalog.load(name)
        assert (
            model_from_config.find_model_shape(entry, Params()).length
            == entry.settings["max_length"]
        )


def test_subsets_say_what_a_batch_has_and_how_much_is_searched(tmp_path):
    subset = str(retrieval_step.subset(tmp_path))
    need = estimate.estimate_memory(asked("clip-nano", subsets=(subset, subset)))
    assert need.facts["batch"] == "queries of text and image, passages of text and image"
    assert need.facts["corpus"] == f"{PASSAGES:,} passages"
    vectors = need.phases["predict"][evaluation_step.CORPUS]
    assert vectors >= PASSAGES * 4 * 128
    texts = str(retrieval_step.subset(tmp_path / "texts", pictures=False))
    less = estimate.estimate_memory(asked("clip-nano", subsets=(texts, texts)))
    assert less.facts["batch"] == "queries of text and image, passages of text"
    assert sum(less.phases["train"].values()) < 0.9 * sum(need.phases["train"].values())


def test_without_subsets_both_sides_are_whole_and_no_corpus_is_counted(tmp_path):
    need = estimate.estimate_memory(asked("clip-nano", subsets=(str(tmp_path / "gone"),)))
    assert "assumed" in need.facts["batch"]
    assert need.facts["corpus"] == estimate.UNKNOWN
    assert evaluation_step.CORPUS not in need.phases["predict"]


def test_a_plan_that_evaluates_on_nothing_has_no_prediction():
    need = estimate.estimate_memory(asked("clip-nano", evaluate_on=()))
    assert list(need.phases) == ["train"]
    assert need.facts["corpus"] == "none, as nothing is evaluated"


def test_after_a_training_the_moments_are_still_there():
    trained, plain = (
        estimate.estimate_memory(asked("clip-nano", trains=trains)) for trains in (True, False)
    )
    assert list(plain.phases) == ["predict"]
    more = sum(trained.phases["predict"].values()) - sum(plain.phases["predict"].values())
    assert more == pytest.approx(8 * 1_699_329, rel=0.01)


def test_a_rank_has_the_vectors_of_all_and_keeps_its_gradients():
    settings = {"scoring": "late", "batch": 8, "evaluate_on": ()}
    one, four = (
        estimate.estimate_memory(asked("clip-nano", nproc_per_node=n, **settings)).phases["train"]
        for n in (1, 4)
    )
    assert four["gradients"] >= 4 * 1_699_329 - 10_000
    assert four["logits and loss"] > 8 * one["logits and loss"]


def test_vectors_in_a_file_take_no_memory(tmp_path):
    subset = str(retrieval_step.subset(tmp_path))
    with mock.patch.object(evaluation_step, "FUSED_AT_ONCE", 10):
        small = estimate.estimate_memory(
            asked("clip-nano", subsets=(subset,) * 2, corpus_memory_gib=1e-6)
        )
    assert small.phases["predict"].get(evaluation_step.CORPUS, 0) < 100_000


def test_what_is_not_known_is_a_sentence():
    with pytest.raises(EngineError, match="'run:x': the sizes of another run's model"):
        estimate.estimate_memory(asked("run:x"))
    with pytest.raises(EngineError, match="max_length = 500: model 'tinyclip-61m' takes at most"):
        estimate.estimate_memory(asked("tinyclip-61m", max_length=500))
    strange = ModelEntry(name="strange", family="clip", hub="some/where")
    with pytest.raises(EngineError, match="'strange': its sizes are not known here"):
        model_from_config.find_model_shape(strange, Params())
    half = ModelEntry(name="half", family="clip-scratch", architecture={"width": 8})
    with pytest.raises(EngineError, match="'half': its architecture lacks layers"):
        model_from_config.find_model_shape(half, Params()).build()


def test_features_are_computed_before_a_training_on_them():
    pytest.importorskip(PACKAGED)
    need = estimate.estimate_memory(asked("effnet-minilm", evaluate_on=()))
    assert "by the frozen towers" in need.facts["prediction"]
    weights = (
        need.phases["predict"][evaluation_step.TEXT]
        + need.phases["predict"][evaluation_step.VISION]
    )
    assert weights > 4 * (22_000_000 + 3_000_000)  # MiniLM-L6 and EfficientNet-Lite0
    assert sum(need.phases["predict"].values()) > sum(need.phases["train"].values())

"""Memory estimate of a retrieval run: the engine's real code on fake tensors.

A training step (both towers over queries and passages, fusion, loss, backward pass, optimizer),
then the evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from engines import model_catalog
from engines.memory_query import MemoryEstimate, MemoryQuery, Phase
from engines.model_catalog import ModelEntry
from engines.retrieval.memory import (
    dataset_stats,
    evaluation_step,
    model_from_config,
    training_step,
)
from engines.retrieval.memory.dataset_stats import DatasetStats, ItemCounts
from engines.retrieval.memory.training_step import FakeRetrievalRun
from engines.retrieval.models import factory, frozen_towers
from engines.retrieval.models.encoder import count_parameters
from engines.retrieval.params import Params
from engines.torchkit.memory import fake_training_step
from engines.torchkit.memory.fake_training_step import TrainingOptions

RUNTIME_BYTES: Final = 11 * (1 << 30) // 10
"""Max RSS of the demo's runs on a CPU before they train: 1.01 to 1.09 GiB."""
TOKEN_BYTES: Final = 8
KIB: Final = 1024
"""Smallest part that is listed; a temperature is less."""
UNKNOWN: Final = "not counted, as no built subset of the evaluation was read"


def estimate_memory(query: MemoryQuery) -> MemoryEstimate:
    """Memory estimate of a query: bytes by part of a training step and of the evaluation.

    Raises:
        EngineError: the model's sizes are not known here, or settings do not fit it.
    """
    return estimate_entry(
        query, model_catalog.load(query.model), Params.model_validate(query.params)
    )


@dataclass(frozen=True)
class RunItems:
    """Numbers of items that a run reads, from the built subsets."""

    queries: ItemCounts
    passages: ItemCounts
    """Passages of the training subset."""
    splits: Sequence[ItemCounts]
    corpora: Sequence[ItemCounts]
    """The searched corpora, each once."""
    facts: dict[str, str]

    @classmethod
    def from_query(cls, query: MemoryQuery, params: Params) -> RunItems:
        """From the query's subsets; without any: text and image on both sides, no corpus."""
        subsets = dataset_stats.read_all_stats(query.subsets)
        unknown = ItemCounts(*[max(params.batch, params.eval_batch_size)] * 3)
        training = subsets[0] if subsets else DatasetStats(unknown, unknown, unknown, "")
        others = subsets[1:] or ([] if query.trains else subsets[:1])
        corpora = list({subset.fingerprint: subset.corpus for subset in others}.values())
        sides = (
            f"queries of {training.queries.describe()}, passages of {training.positives.describe()}"
        )
        facts = {"batch": sides if subsets else f"{sides} assumed, as no built subset was read"}
        facts["corpus"] = ", ".join(f"{c.items:,} passages" for c in corpora) or UNKNOWN
        splits = [subset.queries for subset in others] or [training.queries]
        return cls(training.queries, training.positives, splits, corpora, facts)


def estimate_entry(query: MemoryQuery, entry: ModelEntry, params: Params) -> MemoryEstimate:
    """`estimate_memory` for the entry of a model and settings."""
    if query.trains:
        factory.refuse_training(entry)
    options, shape, reads = (
        make_options(query, params),
        model_from_config.find_model_shape(entry, params),
        RunItems.from_query(query, params),
    )
    model = shape.build()
    with fake_training_step.fake_mode(options) as tracker:
        model_from_config.materialize(model)
        factory.validate_model(model, entry, params)
        factory.configure_model(model, entry, params, shape.tokenizer)
        fake_run = FakeRetrievalRun(
            tracker, model, params, options, shape.length or params.max_length
        )
        fake_run.track_model()
        phases, beside = measure_peaks(query, fake_run, reads)
        total, learnt = count_parameters(model)
    files = 4 * total if entry.hub or entry.path else 0
    host = fake_training_step.estimate_host_memory(
        query, RUNTIME_BYTES, files, pair_bytes(fake_run, reads), phases
    )
    facts = {
        "sizes of the model": shape.source,
        "parameters": f"{total:,}, {learnt:,} trained",
        "longest text": f"{fake_run.tokens} tokens, as many as the model gets",
        "picture": f"{params.image_size} x {params.image_size} pixels",
        **reads.facts,
        "precision": fake_training_step.describe_precision(query, options),
        **beside,
    }
    return MemoryEstimate(phases=phases, host=host, facts=facts)


def measure_peaks(
    query: MemoryQuery, fake_run: FakeRetrievalRun, reads: RunItems
) -> tuple[dict[Phase, dict[str, int]], dict[str, str]]:
    """Parts at the peak of each phase, and facts about them."""
    params, facts = fake_run.params, {}
    phases: dict[Phase, dict[str, int]] = {}
    if query.trains:
        phases["train"] = training_step.measure_training(fake_run, reads.queries, reads.passages)
    if evaluates(query, params):
        most = max(reads.splits, key=lambda split: split.items)
        phases["predict"] = evaluation_step.measure_evaluation(
            fake_run, reads.corpora, most, trained=query.trains
        )
    else:
        facts["corpus"] = "none, as nothing is evaluated"
    computing = (
        evaluation_step.measure_feature_pass(fake_run)
        if fake_run.model.pixel_normalizer is None
        else {}
    )
    if sum(computing.values()) > sum(phases.get("predict", {}).values()):
        phases["predict"] = computing
        facts["prediction"] = "by the frozen towers, which compute the features before training"
    if (ranks := params.nproc_per_node * params.nnodes) > 1:
        facts["memory"] = f"of one of {ranks} processes, with the vectors of all"
    if params.compile:
        facts["left out"] = "what torch.compile needs or saves"
    shown = {name: {k: v for k, v in each.items() if v >= KIB} for name, each in phases.items()}
    return shown, facts


def evaluates(query: MemoryQuery, params: Params) -> bool:
    """Whether the run evaluates on any subset."""
    return not query.trains or params.evaluate_on != ()


def pair_bytes(fake_run: FakeRetrievalRun, reads: RunItems) -> int:
    """Bytes of a query and its passage in a prepared batch."""
    if fake_run.model.pixel_normalizer is None:
        text, image = 2 * frozen_towers.TEXT_WIDTH, 2 * frozen_towers.IMAGE_WIDTH
    else:
        text, image = TOKEN_BYTES * fake_run.tokens, 3 * fake_run.params.image_size**2
    sides = (reads.queries, reads.passages)
    return sum(text * bool(side.texts) + image * bool(side.images) for side in sides)


def make_options(query: MemoryQuery, params: Params) -> TrainingOptions:
    """The training options of a fake run, by the settings."""
    fixed = {
        "quantize": "none",
        "lora_rank": 0,
        "gradient_checkpointing": False,
        "copies": int(params.ema > 0),
    }
    return TrainingOptions.from_query(query, {**params.model_dump(), **fixed})

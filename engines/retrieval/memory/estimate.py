"""How much memory a retrieval run would take: the model's real module tree, without its weights.

A step is rehearsed on fake tensors by the engine's own code: both towers over queries and passages,
fusion, loss, backward pass, optimizer. Then the evaluation that follows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from engines import model_catalog
from engines.memory_query import Need, Phase, Want
from engines.model_catalog import ModelEntry
from engines.retrieval.memory import (
    dataset_stats,
    evaluation_step,
    model_from_config,
    training_step,
)
from engines.retrieval.memory.dataset_stats import Census, Count
from engines.retrieval.memory.training_step import Scene
from engines.retrieval.models import factory, frozen_towers
from engines.retrieval.models.encoder import parameter_counts
from engines.retrieval.params import Params
from engines.torchkit.memory import fake_training_step
from engines.torchkit.memory.fake_training_step import Tuning

RUNTIME_BYTES: Final = 11 * (1 << 30) // 10
"""Max RSS of the demo's runs on a CPU before they train: 1.01 to 1.09 GiB."""
TOKEN_BYTES: Final = 8
KIB: Final = 1024
"""What is less (a temperature) is no part of its own."""
UNKNOWN: Final = "not counted, as no built subset of the evaluation was read"


def rehearse(want: Want) -> Need:
    """Bytes by part of a training step and of the evaluation.

    Raises:
        EngineError: the model's sizes are not known here, or settings do not fit it.
    """
    return forecast(want, model_catalog.load(want.model), Params.model_validate(want.params))


@dataclass(frozen=True)
class Reads:
    """What a run reads of the subsets that are built, as far as it is known."""

    queries: Count
    passages: Count
    """Of the training subset."""
    splits: Sequence[Count]
    corpora: Sequence[Count]
    """What is searched, each once."""
    facts: dict[str, str]

    @classmethod
    def of(cls, want: Want, params: Params) -> Reads:
        """Where nothing is built: text and image on both sides, and no corpus."""
        found = dataset_stats.all_of(want.subsets)
        unknown = Count(*[max(params.batch, params.evaluate_batch)] * 3)
        own = found[0] if found else Census(unknown, unknown, unknown, "")
        others = found[1:] or ([] if want.trains else found[:1])
        corpora = list({one.fingerprint: one.corpus for one in others}.values())
        sides = f"queries of {own.queries.said()}, passages of {own.positives.said()}"
        facts = {"batch": sides if found else f"{sides} assumed, as no built subset was read"}
        facts["corpus"] = ", ".join(f"{c.items:,} passages" for c in corpora) or UNKNOWN
        splits = [one.queries for one in others] or [own.queries]
        return cls(own.queries, own.positives, splits, corpora, facts)


def forecast(want: Want, entry: ModelEntry, params: Params) -> Need:
    """`rehearse` for the entry of a model and settings."""
    tuning, shape, reads = (
        tuning_of(want, params),
        model_from_config.of(entry, params),
        Reads.of(want, params),
    )
    model = shape.made()
    with fake_training_step.stage(tuning) as ledger:
        model_from_config.fill(model)
        factory.refuse_unfit(model, entry, params)
        factory.shape(model, entry, params, shape.words)
        scene = Scene(ledger, model, params, tuning, shape.length or params.max_tokens)
        scene.booked()
        phases, beside = peaks(want, scene, reads)
        total, learnt = parameter_counts(model)
    files = 4 * total if entry.hub or entry.path else 0
    host = fake_training_step.host(want, RUNTIME_BYTES, files, pair_bytes(scene, reads), phases)
    facts = {
        "sizes of the model": shape.source,
        "parameters": f"{total:,}, {learnt:,} trained",
        "longest text": f"{scene.tokens} tokens, as many as the model gets",
        "picture": f"{params.image_size} x {params.image_size} pixels",
        **reads.facts,
        "precision": fake_training_step.precision_said(want, tuning),
        **beside,
    }
    return Need(phases=phases, host=host, facts=facts)


def peaks(
    want: Want, scene: Scene, reads: Reads
) -> tuple[dict[Phase, dict[str, int]], dict[str, str]]:
    """Parts of each phase, and what a reader should know of them."""
    params, said = scene.params, {}
    phases: dict[Phase, dict[str, int]] = {}
    if want.trains:
        phases["train"] = training_step.train(scene, reads.queries, reads.passages)
    if evaluates(want, params):
        most = max(reads.splits, key=lambda split: split.items)
        phases["predict"] = evaluation_step.predict(scene, reads.corpora, most, trained=want.trains)
    else:
        said["corpus"] = "none, as nothing is evaluated"
    computing = evaluation_step.features(scene) if scene.model.pixels is None else {}
    if sum(computing.values()) > sum(phases.get("predict", {}).values()):
        phases["predict"] = computing
        said["prediction"] = "by the frozen towers, which compute the features before training"
    if params.nproc_per_node > 1:
        said["memory"] = f"of one of {params.nproc_per_node} processes, with the vectors of all"
    if params.compile:
        said["left out"] = "what torch.compile needs or saves"
    shown = {name: {k: v for k, v in each.items() if v >= KIB} for name, each in phases.items()}
    return shown, said


def evaluates(want: Want, params: Params) -> bool:
    """Whether something is encoded and searched: not where a plan says that nothing is."""
    return not want.trains or params.evaluate_on != ()


def pair_bytes(scene: Scene, reads: Reads) -> int:
    """Of a query and its passage as they wait for their batch."""
    if scene.model.pixels is None:
        text, image = 2 * frozen_towers.TEXT_WIDTH, 2 * frozen_towers.IMAGE_WIDTH
    else:
        text, image = TOKEN_BYTES * scene.tokens, 3 * scene.params.image_size**2
    sides = (reads.queries, reads.passages)
    return sum(text * bool(side.texts) + image * bool(side.images) for side in sides)


def tuning_of(want: Want, params: Params) -> Tuning:
    """The settings that decide about memory, as a rehearsal takes them."""
    own = {
        "quantize": "none",
        "lora_rank": 0,
        "checkpointing": False,
        "copies": int(params.ema > 0),
    }
    return Tuning.of(want, {**params.model_dump(), **own})

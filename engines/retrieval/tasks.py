"""One retrieval run from spec to metrics: the order of its phases, and nothing that computes."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engines import protocol, trained_weights
from engines.cuda_support import bf16_problem
from engines.emitter import Emitter, EngineError
from engines.protocol import RunSpec
from engines.retrieval.context import Context
from engines.retrieval.data.items import ArrayItems
from engines.retrieval.data.pairs import PairBatch, PairGatherer, uniform
from engines.retrieval.evaluation.evaluate import Evaluator, epoch_timing
from engines.retrieval.index.encoding import Encoder, Room
from engines.retrieval.index.joint_encoding import JointEncoder
from engines.retrieval.loss import OBJECTIVES, Objective
from engines.retrieval.models import compilation, export, master_weights
from engines.retrieval.models.encoder import parameter_counts
from engines.retrieval.params import SHAPING, Params
from engines.retrieval.prepare import Data, Prepared, prepare, read_data
from engines.torchkit.data.prefetch import to_device
from engines.torchkit.runtime import device, run_setup
from engines.torchkit.runtime.distributed import Team
from engines.torchkit.runtime.precision import has_bf16
from engines.torchkit.training import cost_forecast, loop, timed_training, trained_model
from engines.torchkit.training import export as training_export
from engines.torchkit.training.training_setup import Course
from engines.torchkit.training.weight_averaging import Average, Ema

Job = loop.Training[PairBatch]


def run(spec: RunSpec, emit: Emitter, run_dir: Path) -> None:
    """Train on the subset and evaluate, or only evaluate."""
    params = Params.model_validate(spec.params)
    context = trained_model.resolve(run_setup.begin(spec, params, emit, run_dir), SHAPING)
    target = context.device
    refuse_unsupported(params, target)
    with context.team.leader_first(emit):
        emit.phase("build")
        data = read_data(context)
        device.report_memory(emit, "build", target)
        ready = prepare(context, data)
    ready.model.to(target)
    device.report_memory(emit, "load", target)
    ema = None
    if spec.task in ("train", "probe"):
        job = assemble(context, data, ready)
        ema = job.ema
        costing = cost_forecast.of(spec, job, params.timing_warmup_steps, emit)
        announce(context, data, ready, job)
        if not timed_training.train(context, job, costing, lambda: disk(context, data, ready, job)):
            return
        if params.save_model:
            state = {**ready.state, "subset_fingerprint": data.subset.fingerprint}
            trained_model.keep(context, job, state, ready.files())
            export_encoder(context, ready, job.ema)
    else:
        announce_evaluation(context, data, ready)
    if data.splits:
        evaluate(context, data, ready, ema)
        device.report_memory(emit, "search", target)


def refuse_unsupported(params: Params, target: torch.device) -> None:
    """Raise EngineError where the corpus is to be searched in a precision that the GPU lacks.

    Before anything is loaded, since the search comes last. On a CPU every precision is widened.
    """
    searches = params.search == "exact" and params.search_precision == "bf16"
    if searches and target.type == "cuda" and not has_bf16(target):
        raise EngineError(bf16_problem("search_precision", torch.cuda.get_device_name(target)))


def assemble(context: Context, data: Data, ready: Prepared) -> Job:
    """Everything that the loop needs."""
    params, model, team = context.params, ready.model, context.team
    gatherer = PairGatherer(
        data.pool, ready.texts, ready.images, context.spec.seed, params.modality_dropout
    )
    model.one_pass = context.device.type == "cuda"
    replica = master_weights.replica_for(model, params, context.precision.name)
    computing = model if replica is None else replica.model
    same = uniform(data.pool) and not params.modality_dropout

    def example() -> Any:
        some = to_device(gatherer(np.arange(min(2, len(data.pool))), 0), context.device)
        with nullcontext() if replica else context.precision.autocast():
            return computing(some.queries, some.passages)

    device.choose_convolutions(fixed=same)
    wrapped = team.wrap(computing, example if same else None)
    if replica is not None:
        wrapped = master_weights.without_autocast(wrapped, context.device.type)
    forward = forward_of(wrapped, OBJECTIVES[params.loss], team)

    course = Course.of(
        context, len(data.pool), data.pool.digest(data.subset.fingerprint, ready.pictures)
    )
    job = course.job(model, gatherer, forward)
    job.replica = replica
    if params.compile or params.cuda_graphs:
        compilation.arrange(context, job, computing, gatherer, uniform=same)
    job.ema = Ema(model, params.ema) if params.ema else None
    return job


def forward_of(
    encode: Callable[..., Any], objective: Objective, team: Team
) -> Callable[[PairBatch], loop.Outcome]:
    """From a micro-batch to its loss; with several ranks, over all their vectors."""

    def forward(batch: PairBatch) -> loop.Outcome:
        own_queries, own_passages, scale = encode(batch.queries, batch.passages)
        queries, passages = (team.gather(v, len(batch)) for v in (own_queries, own_passages))
        loss, metrics = objective(queries, passages, batch.positive, scale)
        return loop.Outcome(loss, metrics, len(batch))

    return forward


def announce(context: Context, data: Data, ready: Prepared, job: Job) -> None:
    """Say what is going to happen, before it does."""
    params, order, team = context.params, job.loader.order, context.team
    total, trainable = parameter_counts(ready.model)
    chance = f"in the micro-batch of {order.batch}; chance of r@1 is 1/{order.batch}"
    if team.size > 1:
        chance += f"; gathered with their gradients from {team.size} ranks of {params.batch} each"
    facts = {
        **ready.facts,
        "precision": context.precision.said
        + (", with float32 master weights" if job.replica is not None else ""),
        **context.pipeline.facts,
        "optimizer": f"AdamW{', fused' if params.fused else ''}",
        "schedule": "linear warm-up, then cosine to 0",
        "negatives": chance
        + ("; accumulation does not add any" if params.accumulation > 1 else ""),
        "duplicates": "other positives of a query are no negatives",
        "corpus": f"{len(data.subset.corpus)} passages",
        "openmp_wait": openmp_wait(),
    }
    context.emit.send(
        protocol.Plan(
            steps=job.steps,
            samples=len(data.pool),
            epochs=job.steps / order.steps_per_epoch,
            warmup_steps=min(params.timing_warmup_steps, job.steps),
            stop_at=job.stop_at or 0,
            effective_batch=order.per_step,
            micro_batch=order.batch,
            parameters=total,
            trainable_parameters=trainable,
            subset_fingerprint=data.subset.fingerprint,
            model_revision=ready.revision,
            facts=facts,
        )
    )


def openmp_wait() -> str:
    """How OpenMP's threads wait for each other: it moves step times by a tenth and more."""
    policy, spins = os.environ.get("OMP_WAIT_POLICY"), os.environ.get("GOMP_SPINCOUNT")
    return policy or (f"spin {spins}" if spins else "default")


def announce_evaluation(context: Context, data: Data, ready: Prepared) -> None:
    """The plan of a run that does not train: no steps, but what it is about."""
    total, _ = parameter_counts(ready.model)
    context.emit.send(
        protocol.Plan(
            steps=0,
            samples=sum(len(split.ids) for split in data.splits),
            epochs=0,
            effective_batch=context.params.evaluate_batch,
            micro_batch=context.params.evaluate_batch,
            parameters=total,
            trainable_parameters=0,
            subset_fingerprint=data.subset.fingerprint,
            model_revision=ready.revision,
            facts={
                **ready.facts,
                "precision": context.precision.said,
                **context.pipeline.facts,
            },
        )
    )


def export_encoder(context: Context, ready: Prepared, ema: Average | None) -> None:
    """Write the encoder as its library loads it: with the weights that are evaluated."""
    if not context.params.export_model:
        return
    if sentence := export.refusal(context.entry):
        context.emit.notice("not-exported", sentence)
        return
    with ema.applied() if ema is not None else nullcontext():
        made = export.encoder(
            ready.model, context.entry, context.params, ready.base, ready.tokenizer
        )
        training_export.write(
            context, trained_weights.ENCODER, {made.file: made.tensors}, made.texts
        )


def disk(context: Context, data: Data, ready: Prepared, job: Job) -> dict[str, int]:
    """Bytes that a whole run of this kind keeps on disk; caches are shared with other runs."""
    params, side = context.params, context.params.image_size
    arrays = [a for i in (ready.texts, ready.images) if isinstance(i, ArrayItems) for a in i.arrays]
    on_the_way = params.checkpoint_every > 0 or params.checkpoint_minutes > 0
    exported = params.save_model and params.export_model and not export.refusal(context.entry)
    weights = sum(p.numel() * p.element_size() for p in ready.model.parameters())
    features = sum(array.nbytes for array in arrays if array.dtype == "float16")
    return {
        **cost_forecast.checkpoint_bytes(job, kept=params.save_model, on_the_way=on_the_way),
        "image cache": len(data.strings.images) * side * side * 3,
        **({"encoder folder": weights} if exported else {}),
        **({"feature cache": features} if features else {}),
    }


def evaluate(context: Context, data: Data, ready: Prepared, ema: Average | None) -> None:
    """All splits, with the averaged weights if there are any."""
    params, emit = context.params, context.emit
    emit.phase("eval")
    with ema.applied() if ema is not None else nullcontext():
        room = Room(context.device, params.corpus_memory_gib, context.run_dir)
        kind = JointEncoder if ready.model.joint else Encoder
        encoder = kind(
            ready.model, context.precision, params.evaluate_batch, emit, room, context.pipeline
        )
        evaluator = Evaluator(encoder, ready.texts, ready.images, params, emit)
        costs = [evaluator.run(split, context.run_dir) for split in data.splits]
    if context.spec.task == "evaluate":
        emit.send(epoch_timing(costs))

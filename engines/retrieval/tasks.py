"""Tasks of the retrieval engine: the phases of a run from spec to metrics."""

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
from engines.retrieval.data.pairs import PairBatch, PairCollator, has_uniform_modalities
from engines.retrieval.evaluation.evaluate import RetrievalEvaluator, make_epoch_timing
from engines.retrieval.index.encoding import CorpusEncoder, VectorStorage
from engines.retrieval.index.joint_encoding import JointCorpusEncoder
from engines.retrieval.loss import OBJECTIVES, Objective
from engines.retrieval.models import compilation, export, factory, master_weights
from engines.retrieval.models.encoder import count_parameters
from engines.retrieval.params import ARCHITECTURE_PARAMS, Params
from engines.retrieval.prepare import PreparedModel, RetrievalData, prepare, read_data
from engines.torchkit.data.prefetch import to_device
from engines.torchkit.runtime import device, run_setup
from engines.torchkit.runtime.distributed import ProcessGroup
from engines.torchkit.runtime.precision import has_bf16
from engines.torchkit.training import cost_forecast, loop, timed_training, trained_model
from engines.torchkit.training import export as training_export
from engines.torchkit.training.training_setup import TrainingSetup
from engines.torchkit.training.weight_averaging import Ema, WeightAverage

Job = loop.TrainingJob[PairBatch]


def run(spec: RunSpec, emit: Emitter, run_dir: Path) -> None:
    """Train on the subset and evaluate, or only evaluate."""
    params = Params.model_validate(spec.params)
    context = trained_model.resolve_trained_model(
        run_setup.begin_run(spec, params, emit, run_dir), ARCHITECTURE_PARAMS
    )
    target = context.device
    refuse_unsupported(params, target)
    refuse_training(context)
    with context.process_group.rank_zero_first(emit):
        emit.phase("build")
        data = read_data(context)
        device.report_memory(emit, "build", target)
        ready = prepare(context, data)
    ready.model.to(target)
    device.report_memory(emit, "load", target)
    ema = None
    if spec.task in ("train", "probe"):
        job = create_training_job(context, data, ready)
        ema = job.ema
        cost_probe = cost_forecast.create_cost_probe(spec, job, params.timing_warmup_steps, emit)
        send_plan(context, data, ready, job)
        if not timed_training.train(
            context, job, cost_probe, lambda: estimate_disk(context, data, ready, job)
        ):
            return
        if params.save_model:
            state = {**ready.state, "subset_fingerprint": data.subset.fingerprint}
            trained_model.save_trained_model(context, job, state, ready.files())
            export_encoder(context, ready, job.ema)
    else:
        send_evaluation_plan(context, data, ready)
    if data.splits:
        evaluate(context, data, ready, ema)
        device.report_memory(emit, "search", target)


def refuse_unsupported(params: Params, target: torch.device) -> None:
    """Raise EngineError where `search_precision` is one that the GPU lacks.

    Called before anything is loaded, since the search comes last. A CPU widens every precision.
    """
    searches = params.search == "exact" and params.search_precision == "bf16"
    if searches and target.type == "cuda" and not has_bf16(target):
        raise EngineError(bf16_problem("search_precision", torch.cuda.get_device_name(target)))


def refuse_training(context: Context) -> None:
    """Raise EngineError where a model that is only evaluated is to be trained."""
    if context.entry.family in factory.EVALUATE_ONLY and context.spec.task != "evaluate":
        raise EngineError(
            f"model '{context.entry.name}': is evaluated, not trained; run it with "
            "--task evaluate, or train siglip2-b16 or another model"
        )


def create_training_job(context: Context, data: RetrievalData, ready: PreparedModel) -> Job:
    """The job of the training loop: collator, replica, DDP, compilation and EMA."""
    params, model, process_group = context.params, ready.model, context.process_group
    collator = PairCollator(
        data.pairs, ready.texts, ready.images, context.spec.seed, params.modality_dropout
    )
    model.one_pass = context.device.type == "cuda"
    replica = master_weights.make_replica(model, params, context.precision.name)
    computing = model if replica is None else replica.model
    is_uniform = has_uniform_modalities(data.pairs) and not params.modality_dropout

    def example() -> Any:
        some = to_device(collator(np.arange(min(2, len(data.pairs))), 0), context.device)
        with nullcontext() if replica else context.precision.autocast():
            return computing(some.queries, some.passages)

    device.set_convolution_benchmark(fixed=is_uniform)
    wrapped = process_group.wrap(computing, example if is_uniform else None)
    if replica is not None:
        wrapped = master_weights.without_autocast(wrapped, context.device.type)
    forward = make_forward(wrapped, OBJECTIVES[params.loss], process_group)

    setup = TrainingSetup.from_run(
        context, len(data.pairs), data.pairs.digest(data.subset.fingerprint, ready.pictures)
    )
    job = setup.create_job(model, collator, forward)
    job.replica = replica
    if params.compile or params.cuda_graphs:
        compilation.enable_compilation(context, job, computing, collator, uniform=is_uniform)
    job.ema = Ema(model, params.ema) if params.ema else None
    return job


def make_forward(
    encode: Callable[..., Any], objective: Objective, process_group: ProcessGroup
) -> Callable[[PairBatch], loop.LossOutput]:
    """Function from a micro-batch to its loss, over the vectors of all ranks."""

    def forward(batch: PairBatch) -> loop.LossOutput:
        own_queries, own_passages, scale = encode(batch.queries, batch.passages)
        queries, passages = (
            process_group.gather(v, len(batch)) for v in (own_queries, own_passages)
        )
        loss, metrics = objective(queries, passages, batch.positive, scale)
        return loop.LossOutput(loss, metrics, len(batch))

    return forward


def send_plan(context: Context, data: RetrievalData, ready: PreparedModel, job: Job) -> None:
    """Send the `Plan` of a training run."""
    params, order, process_group = context.params, job.loader.order, context.process_group
    total, trainable = count_parameters(ready.model)
    chance = f"in the micro-batch of {order.batch}; chance of r@1 is 1/{order.batch}"
    if process_group.size > 1:
        size = process_group.size
        chance += f"; gathered with their gradients from {size} ranks of {params.batch} each"
    facts = {
        **ready.facts,
        "precision": context.precision.description
        + (", with float32 master weights" if job.replica is not None else ""),
        **context.pipeline.facts,
        "optimizer": f"AdamW{', fused' if params.fused else ''}",
        "schedule": "linear warm-up, then cosine to 0",
        "negatives": chance
        + ("; accumulation does not add any" if params.gradient_accumulation_steps > 1 else ""),
        "duplicates": "other positives of a query are no negatives",
        "corpus": f"{len(data.subset.corpus)} passages",
        "openmp_wait": read_openmp_wait(),
    }
    context.emit.send(
        protocol.Plan(
            steps=job.steps,
            samples=len(data.pairs),
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


def read_openmp_wait() -> str:
    """Wait policy of OpenMP's threads, which changes step times by a tenth and more."""
    policy, spins = os.environ.get("OMP_WAIT_POLICY"), os.environ.get("GOMP_SPINCOUNT")
    return policy or (f"spin {spins}" if spins else "default")


def send_evaluation_plan(context: Context, data: RetrievalData, ready: PreparedModel) -> None:
    """Send the `Plan` of a run that only evaluates."""
    total, _ = count_parameters(ready.model)
    context.emit.send(
        protocol.Plan(
            steps=0,
            samples=sum(len(split.ids) for split in data.splits),
            epochs=0,
            effective_batch=context.params.eval_batch_size,
            micro_batch=context.params.eval_batch_size,
            parameters=total,
            trainable_parameters=0,
            subset_fingerprint=data.subset.fingerprint,
            model_revision=ready.revision,
            facts={
                **ready.facts,
                "precision": context.precision.description,
                **context.pipeline.facts,
            },
        )
    )


def export_encoder(context: Context, ready: PreparedModel, ema: WeightAverage | None) -> None:
    """Export the encoder for its library, with the weights that are evaluated."""
    if not context.params.export_model:
        return
    if sentence := export.find_refusal(context.entry):
        context.emit.notice("not-exported", sentence)
        return
    with ema.applied() if ema is not None else nullcontext():
        folder = export.make_encoder_folder(
            ready.model, context.entry, context.params, ready.base, ready.tokenizer
        )
        training_export.write_export(
            context, trained_weights.ENCODER, {folder.file: folder.tensors}, folder.texts
        )


def estimate_disk(
    context: Context, data: RetrievalData, ready: PreparedModel, job: Job
) -> dict[str, int]:
    """Bytes that a whole run keeps on disk, by part; caches are shared with other runs."""
    params, side = context.params, context.params.image_size
    arrays = [a for i in (ready.texts, ready.images) if isinstance(i, ArrayItems) for a in i.arrays]
    on_the_way = params.checkpoint_every > 0 or params.checkpoint_minutes > 0
    exported = params.save_model and params.export_model and not export.find_refusal(context.entry)
    weights = sum(p.numel() * p.element_size() for p in ready.model.parameters())
    features = sum(array.nbytes for array in arrays if array.dtype == "float16")
    return {
        **cost_forecast.checkpoint_bytes(job, kept=params.save_model, on_the_way=on_the_way),
        "image cache": len(data.vocabularies.images) * side * side * 3,
        **({"encoder folder": weights} if exported else {}),
        **({"feature cache": features} if features else {}),
    }


def evaluate(
    context: Context, data: RetrievalData, ready: PreparedModel, ema: WeightAverage | None
) -> None:
    """Evaluate all splits, with the EMA weights if there are any."""
    params, emit = context.params, context.emit
    emit.phase("eval")
    with ema.applied() if ema is not None else nullcontext():
        storage = VectorStorage(context.device, params.corpus_memory_gib, context.run_dir)
        kind = JointCorpusEncoder if ready.model.joint else CorpusEncoder
        encoder = kind(
            ready.model, context.precision, params.eval_batch_size, emit, storage, context.pipeline
        )
        evaluator = RetrievalEvaluator(encoder, ready.texts, ready.images, params, emit)
        costs = [evaluator.run(split, context.run_dir) for split in data.splits]
    if context.spec.task == "evaluate":
        emit.send(make_epoch_timing(costs))

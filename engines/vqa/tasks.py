"""The phases of a VQA run in their order, from spec to answers."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from engines import protocol
from engines.emitter import Emitter
from engines.protocol import RunSpec
from engines.torchkit.checkpointing import checkpoints
from engines.torchkit.checkpointing.trained_tensors import trainable_tensors
from engines.torchkit.runtime import device, run_setup
from engines.torchkit.training import cost_forecast, export, timed_training
from engines.torchkit.training import trained_model as kept
from engines.torchkit.training.early_stopping import Monitor
from engines.vqa.answering import answer_split
from engines.vqa.context import Context
from engines.vqa.data.dataset import VqaData, read_data
from engines.vqa.data.questions import select_stratified
from engines.vqa.ensemble.fold_runs import VALIDATION
from engines.vqa.evaluation.run_outputs import file_name, write_submission
from engines.vqa.params import ARCHITECTURE_PARAMS, Params
from engines.vqa.prepare import PreparedAnswerer, prepare
from engines.vqa.training import Job, create_training_job
from engines.vqa.validation import QuestionValidation


def run(spec: RunSpec, emit: Emitter, run_dir: Path) -> None:
    """Train on the subset and answer, or only answer."""
    params = Params.model_validate(spec.params)
    initial = run_setup.begin_run(spec, params, emit, run_dir, deterministic=params.deterministic)
    context, target = kept.resolve_trained_model(initial, ARCHITECTURE_PARAMS), initial.device
    with context.process_group.rank_zero_first(emit):
        emit.phase("build")
        data = read_data(context)
        device.report_memory(emit, "build", target)
        ready = prepare(context, data)
    device.report_memory(emit, "load", target)
    if context.trained is not None:
        kept.check_base_weights(context.trained, ready.state["base_weights"])
        kept.load_trained_weights(ready.model, context.trained)
    if spec.task in ("train", "probe"):
        if not train(context, data, ready):
            return
    else:
        send_plan(context, data, ready, None)
    answer_splits(context, data, ready)
    if spec.task != "train":
        context.process_group.destroy()
    device.report_memory(emit, "generate", target)


def train(context: Context, data: VqaData, ready: PreparedAnswerer) -> bool:
    """Train and save the model; returns whether this process goes on to answer."""
    params, emit = context.params, context.emit
    validation = QuestionValidation(context, data, ready)
    job = create_training_job(context, data, ready, validation)
    cost_probe = cost_forecast.create_cost_probe(
        context.spec, job, params.timing_warmup_steps, emit
    )
    if cost_probe is not None:  # a cost probe validates and answers nothing
        job.after_epoch = None
    send_plan(context, data, ready, job, validation.monitor)
    if params.ema and params.swa:
        emit.notice("ema-unused", "ema and swa: SWA answers, so no EMA is kept; set one of them")
    if not timed_training.train(
        context, job, cost_probe, lambda: estimate_disk(context, ready, job)
    ):
        return False
    validation.restore_answering_weights()
    if params.save_model:
        state = {**ready.state, "subset_fingerprint": data.fingerprint}
        kept.save_trained_model(context, job, state, base=ready.base)
        if params.export_model:
            export.write_adapter(context, ready.model.model, context.entry)
    return True


def send_plan(
    context: Context,
    data: VqaData,
    ready: PreparedAnswerer,
    job: Job | None,
    monitor: Monitor | None = None,
) -> None:
    """Send the Plan message of the run: steps, batch sizes, parameters, facts."""
    params, model = context.params, ready.model
    answering = [name for name, on in (("EMA", params.ema), ("SWA", params.swa)) if on]
    facts = {
        **ready.facts,
        **kept.facts(context),
        "precision": context.precision.description,
        **context.pipeline.facts,
        "optimizer": f"AdamW{', fused' if params.fused else ''}",
        "schedule": "linear warm-up, then cosine to 0",
        "gradient_checkpointing": "non-reentrant" if params.gradient_checkpointing else "off",
        "answering_weights": f"{answering[-1]} of the trained ones" if answering else "the last",
        **(monitor.facts() if monitor and job and job.after_epoch else {}),
    }
    order = job.loader.order if job else None
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    context.emit.send(
        protocol.Plan(
            steps=job.steps if job else 0,
            samples=len(data.train) if job else sum(map(len, data.splits.values())),
            epochs=job.steps / order.steps_per_epoch if job and order else 0,
            warmup_steps=min(params.timing_warmup_steps, job.steps) if job else 0,
            stop_at=(job.stop_at or 0) if job else 0,
            effective_batch=order.per_step if order else params.eval_batch_size,
            micro_batch=order.batch if order else params.eval_batch_size,
            parameters=ready.parameters,
            trainable_parameters=trained if job else 0,
            subset_fingerprint=data.fingerprint,
            model_revision=ready.revision,
            facts=facts,
        )
    )


def answer_splits(context: Context, data: VqaData, ready: PreparedAnswerer) -> None:
    """Answer the held-out questions, then all splits; the submission last."""
    params = context.params
    key = {"weights": weights_digest(ready.model), "subset": data.fingerprint}
    if len(data.validation):
        answer_split(context, ready, data.validation, VALIDATION, key)
    last = data.submission_subset.name if data.submission_subset else ""
    for name, questions in data.splits.items():
        limit = 0 if name == last else params.evaluate_limit
        chosen = questions.select(select_stratified(questions.answers, limit))
        answers = answer_split(context, ready, chosen, name, key)
        if data.submission_subset is not None and name == last and answers:
            context.emit.phase("save", "submission")
            path = context.run_dir / file_name(context.spec.task, params)
            write_submission(
                context.emit,
                path,
                answers,
                params.sample_submission,
                data.submission_subset,
            )


def weights_digest(model: Any) -> str:
    """Digest of the trainable weights; stored answers count for equal weights only."""
    hasher = hashlib.blake2b(digest_size=16)
    for name, tensor in trainable_tensors(model).items():
        hasher.update(name.encode())
        hasher.update(checkpoints.raw_bytes(tensor))
    return hasher.hexdigest()


def estimate_disk(context: Context, ready: PreparedAnswerer, job: Job) -> dict[str, int]:
    """Bytes that a full run keeps on disk, by what they are; caches are shared with other runs."""
    params = context.params
    on_the_way = params.checkpoint_every > 0 or params.checkpoint_minutes > 0
    exported = export.adapter_bytes(ready.model) * (params.save_model and params.export_model)
    return {
        **cost_forecast.checkpoint_bytes(job, kept=params.save_model, on_the_way=on_the_way),
        **({"adapter folder": exported} if exported else {}),
        "picture cache": ready.vision.pictures.bytes,
        **({"feature cache": ready.vision.cached.bytes} if ready.vision.cached else {}),
    }

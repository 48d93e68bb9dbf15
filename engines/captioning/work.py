"""One captioning run from spec to metrics: the order of its phases, and nothing that computes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

import torch

from engines import models, protocol
from engines.captioning.context import Context
from engines.captioning.data import Data, read_data
from engines.captioning.evaluate import Evaluator
from engines.captioning.judge import Judge
from engines.captioning.media import CaptionBatch, Gatherer, Spoken, to_device
from engines.captioning.model import mean_loss
from engines.captioning.params import Params
from engines.captioning.parts import part
from engines.captioning.prepare import CALIBRATED_ON, Prepared, prepare
from engines.captioning.vision import Tower
from engines.captioning.watch import Watch
from engines.emitter import Emitter, EngineError
from engines.protocol import RunSpec
from engines.torchkit import device, loop, quantize, trained
from engines.torchkit.batches import Loader, Order
from engines.torchkit.measure import Ledger, Meter, stopwatch
from engines.torchkit.optimizers import decay_groups
from engines.torchkit.precision import Precision
from engines.torchkit.schedules import warmup_cosine, warmup_steps

Job = loop.Training[CaptionBatch]

SHAPING: Final = (
    "vision", "vision_layer", "cls", "llm", "prompt", "projector", "projector_hidden",
    "projector_depth", "projector_tokens", "projector_heads", "projector_head_width",
    "projector_readout", "quantize", "double_quant", "lora_rank", "lora_alpha", "lora_targets",
    "frames", "feature_dtype",
)  # fmt: skip
"""Settings that a trained model brings along; everything else is the evaluating run's own."""


def run(spec: RunSpec, emit: Emitter, run_dir: Path) -> None:
    """Train on the subset and evaluate, or only evaluate."""
    params = Params.model_validate(spec.params)
    target = device.choose(spec.devices)
    device.prepare(params.threads, tf32=params.tf32)
    device.seed(spec.seed)
    device.introduce(emit, spec, target)
    precision = Precision(params.precision, target)
    context = resolve(Context(spec, params, precision, emit, run_dir, models.load(spec.model)))
    emit.phase("build")
    tower = Tower(part(context, "vision"), context.params, precision)
    data = read_data(context, tower.shape.image_size)
    device.report_memory(emit, "build", target)
    ready = prepare(context, data, tower)
    device.report_memory(emit, "load", target)
    judge = Judge(context, data.pixels, data.train, ready)
    evaluator = Evaluator(context, ready, judge)
    if spec.task == "train":
        ready.model.calibrate(first_features(data, ready))
        root = run_dir / "checkpoints"
        watch = Watch(context, data, evaluator, ready.model, root)
        job = assemble(context, data, ready, watch)
        announce(context, data, ready, job)
        train(context, job)
        watch.restore()
        device.report_memory(emit, "train", target)
        if params.save_model:
            trained.keep(context, job, ready.state)
    else:
        if context.trained is not None:
            trained.load(ready.model, context.trained)
        announce(context, data, ready, None)
    evaluate(context, data, evaluator)
    device.report_memory(emit, "generate", target)


def resolve(context: Context) -> Context:
    """The run with the model that is meant.

    Raises:
        EngineError: the run that trained it left no checkpoint, or nothing was trained.
    """
    if context.entry.family != "run" and context.spec.task == "evaluate":
        raise EngineError(
            f"model '{context.spec.model}': its projector was never trained; evaluate a run's "
            "model, run:<id>, or use task = train"
        )
    return trained.resolve(context, SHAPING)


def first_features(data: Data, ready: Prepared) -> torch.Tensor:
    """Of a few training media: the same ones in every run."""
    rows = data.train.spread(CALIBRATED_ON).rows
    return ready.features(ready.items.gather(rows).to(ready.tower.precision.device))


def assemble(context: Context, data: Data, ready: Prepared, watch: Watch) -> Job:
    """Everything that the loop needs."""
    params, model, target = context.params, ready.model, context.device
    order = Order(len(data.train), params.batch, params.accumulation, context.spec.seed)
    spoken = tokenise(context, data, ready)
    gatherer = Gatherer(ready.items, data.train.rows, spoken, context.spec.seed)
    gatherer.pin = params.pin_memory and target.type == "cuda"
    steps = math.ceil(params.epochs * order.steps_per_epoch)
    steps = min(steps, params.max_steps) if params.max_steps else steps
    warm = warmup_steps(steps, params.warmup_ratio, params.warmup_steps)
    if params.compile:
        model.projector.compile()

    def forward(batch: CaptionBatch) -> loop.Outcome:
        summed, tokens = model(ready.features(batch.media), batch.ids, batch.labels)
        return loop.Outcome(mean_loss(summed, tokens), watch.latest, len(batch))

    def lr_at(step: int) -> float:
        if params.schedule == "constant":
            return params.lr * min(1.0, (step + 1) / max(1, warm))
        return params.lr * warmup_cosine(step, steps, warm)

    return loop.Training(
        model=model,
        loader=Loader(order, gatherer, params.workers),
        transfer=lambda batch: to_device(batch, target),
        forward=forward,
        optimizer=optimizer(params, ready),
        lr_at=lr_at,
        precision=context.precision,
        steps=steps,
        clip_norm=params.clip_norm,
        checkpoint_every=params.checkpoint_every,
        checkpoint_seconds=params.checkpoint_minutes * 60,
        checkpoint_root=context.run_dir / "checkpoints",
        full_disk_is_fatal=context.spec.on_disk_full == "stop",
        after_epoch=watch.after_epoch if watch.wanted else None,
    )


def optimizer(params: Params, ready: Prepared) -> torch.optim.AdamW:
    """AdamW; the projector's groups may have a rate of their own."""
    model, scale = ready.model, (params.projector_lr or params.lr) / params.lr
    groups = decay_groups(model.projector.named_parameters(), params.weight_decay)
    for group in groups:
        group["lr_scale"] = scale
    groups += decay_groups(model.llm.named_parameters(), params.weight_decay)
    return torch.optim.AdamW(groups, lr=params.lr, betas=(0.9, params.beta2), fused=params.fused)


def tokenise(context: Context, data: Data, ready: Prepared) -> Spoken:
    """The training captions as token ids; says how many were cut."""
    longest, cut = context.params.max_tokens, 0
    spoken = []
    for said in data.train.captions.references:
        encoded = [ready.wording.encode(one, longest) for one in said]
        cut += sum(was_cut for _, was_cut in encoded)
        spoken.append([ids for ids, _ in encoded])
    if cut:
        context.emit.notice("texts-truncated", f"{cut} captions were cut at {longest} tokens", cut)
    return Spoken(spoken)


def announce(context: Context, data: Data, ready: Prepared, job: Job | None) -> None:
    """Say what is going to happen, before it does."""
    params, model = context.params, ready.model
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    facts = {
        **ready.facts,
        "precision": params.precision,
        "optimizer": f"AdamW{', fused' if params.fused else ''}",
        "schedule": f"linear warm-up, then {params.schedule}",
        "checkpointing": "non-reentrant" if params.checkpointing else "off",
    }
    order = job.loader.order if job else None
    context.emit.send(
        protocol.Plan(
            steps=job.steps if job else 0,
            samples=len(data.train) if job else sum(map(len, data.splits)),
            epochs=job.steps / order.steps_per_epoch if job and order else 0,
            warmup_steps=min(params.timing_warmup_steps, job.steps) if job else 0,
            effective_batch=order.per_step if order else params.evaluate_batch,
            micro_batch=order.batch if order else params.evaluate_batch,
            parameters=quantize.logical_parameters(model),
            trainable_parameters=trained if job else 0,
            subset_fingerprint=data.fingerprint,
            model_revision=ready.revision,
            facts=facts,
        )
    )


def train(context: Context, job: Job) -> None:
    """The training phases and the run's `Timing`."""
    per_epoch = job.loader.order.steps_per_epoch
    warmup = context.params.timing_warmup_steps
    ledger = Ledger(per_epoch, warmup)
    # Whatever was drawn while caches were filled, training starts from the seed.
    device.seed(context.spec.seed)
    meter = Meter(stopwatch(context.device), warmup, per_epoch)
    loop.train(job, meter, ledger, context.emit)
    context.emit.send(ledger.timing())


def evaluate(context: Context, data: Data, evaluator: Evaluator) -> None:
    """A sample of the training media, then all splits."""
    params = context.params
    if context.spec.task == "train" and params.evaluate_train:
        evaluator.run(data.train.spread(params.evaluate_train), "train")
    for split in data.splits:
        evaluator.run(split.spread(params.evaluate_limit), split.name)

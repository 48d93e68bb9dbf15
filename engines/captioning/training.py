"""Training of a captioner in one or several stages: batches, loss, optimizer."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from engines.captioning.context import Context
from engines.captioning.data.dataset import CaptioningData
from engines.captioning.data.media import CaptionBatch, CaptionCollator, TokenizedCaptions
from engines.captioning.evaluation.evaluate import Evaluator
from engines.captioning.models.captioner import mean_loss
from engines.captioning.params import Params
from engines.captioning.prepare import CALIBRATION_MEDIA, PreparedCaptioner
from engines.captioning.stages import CaptionStage
from engines.captioning.validation import CaptionValidation
from engines.torchkit.checkpointing.training_identity import TrainingIdentity, fingerprint_samples
from engines.torchkit.data.prefetch import to_device
from engines.torchkit.modeling import adapter_copies
from engines.torchkit.training import compilation, loop
from engines.torchkit.training.engine_task import TrainingStage
from engines.torchkit.training.optimization import decay_groups
from engines.torchkit.training.stage_position import StagePosition
from engines.torchkit.training.training_setup import TrainingSetup

Job = loop.TrainingJob[CaptionBatch]


def set_up_stages(
    context: Context, data: CaptioningData, ready: PreparedCaptioner, evaluator: Evaluator
) -> list[TrainingStage]:
    """The stages of a run in order; one at the position of number 0 without stages."""
    params, samples = context.params, len(data.train)
    digest = fingerprint_samples(data.fingerprint, (data.train.rows, data.media))
    named, first = params.stages or (CaptionStage(),), 1 if params.stages else 0
    setups: list[TrainingSetup] = []
    for number, stage_params in enumerate(params.stage_params(), first):
        seed = StagePosition(number).seed(context.spec.seed)
        spec = context.spec.model_copy(update={"seed": seed})
        stage_context = replace(context, params=stage_params, spec=spec)
        setups.append(TrainingSetup.from_run(stage_context, samples, digest))
    if params.stages:
        batches = [setup.order.per_step for setup in setups]
        identity = TrainingIdentity.of_run(
            params, context.spec.seed, batches, digest, samples, setups[0].identity.model
        )
        setups = [replace(setup, identity=identity) for setup in setups]
    captions, earlier_parts = tokenize_captions(context, data, ready), frozenset[str]()
    stages: list[TrainingStage] = []
    for number, (stage, setup) in enumerate(zip(named, setups, strict=True), first):
        before = setups[: len(stages)]
        steps, epochs = sum(s.steps for s in before), sum((s.epochs for s in before), 0.0)
        position = StagePosition(number, stage.name, steps, epochs)
        keep_last = params.evaluate_last and setup is setups[-1]
        validation = CaptionValidation(
            setup.run, data, evaluator, ready.model, number, keep_last=keep_last
        )
        collator = CaptionCollator(ready.items, data.train.rows, captions, setup.run.spec.seed)
        create = partial(create_training_job, setup, ready, collator, validation, earlier_parts)
        stages.append(TrainingStage(setup, create, validation, position, stage.settings))
        earlier_parts |= frozenset(setup.run.params.trained_parts)
    return stages


def calibration_features(data: CaptioningData, ready: PreparedCaptioner) -> torch.Tensor:
    """Features [CALIBRATION_MEDIA, F, N, D] of training media, the same ones in every run."""
    rows = data.train.select_evenly(CALIBRATION_MEDIA).rows
    return ready.encode_features(ready.items.gather(rows).to(ready.tower.precision.device))


def create_training_job(
    setup: TrainingSetup,
    ready: PreparedCaptioner,
    collator: CaptionCollator,
    validation: CaptionValidation,
    earlier_parts: frozenset[str],
) -> Job:
    """The training of a stage as the loop takes it: batches, loss, optimizer.

    `earlier_parts`: parts that the stages before train.
    """
    context: Context = setup.run
    params, model, process_group = context.params, ready.model, context.process_group
    adapters = "lora" in earlier_parts.union(params.trained_parts) or context.trained is not None
    model.train_parts(params.trained_parts, adapters=adapters)

    def example() -> Any:
        some = to_device(collator(np.zeros(1, np.int64), 0), context.device)
        with context.precision.autocast():
            return model(ready.encode_features(some.media), some.ids, some.labels)

    caption = process_group.wrap(model, example)
    if params.compile:
        model.projector.compile()

    def forward(batch: CaptionBatch) -> loop.LossOutput:
        local_losses = caption(ready.encode_features(batch.media), batch.ids, batch.labels)
        summed, tokens = (process_group.gather(part, len(batch)) for part in local_losses)
        # The last token of a caption is only predicted.
        read = tokens.sum() + len(batch) * (model.prompt_tokens - 1)
        return loop.LossOutput(mean_loss(summed, tokens), validation.latest, len(batch), read)

    job = setup.create_job(model, collator, forward)
    job.weight_copies = adapter_copies.copy_adapters(
        model, context.precision.name, process_group.size
    )
    job.trained_before = model.parameter_names(earlier_parts)
    job.optimizer = build_optimizer(params, ready)
    if params.compile:
        job.prepare = compilation.compile_on_first_batch(job)
    if params.schedule == "constant":
        job.lr_at = lambda step: params.lr * min(1.0, (step + 1) / max(1, setup.warmup))
    return job


def build_optimizer(params: Params, ready: PreparedCaptioner) -> torch.optim.AdamW:
    """AdamW over projector and adapters; the projector's groups are scaled to `projector_lr`."""
    model, scale = ready.model, (params.projector_lr or params.lr) / params.lr
    groups = decay_groups(model.projector.named_parameters(), params.weight_decay)
    for group in groups:
        group["lr_scale"] = scale
    groups += decay_groups(model.llm.named_parameters(), params.weight_decay)
    return torch.optim.AdamW(groups, lr=params.lr, betas=(0.9, params.beta2), fused=params.fused)


def tokenize_captions(
    context: Context, data: CaptioningData, ready: PreparedCaptioner
) -> TokenizedCaptions:
    """The training captions as token ids; emits a notice with the number of truncated ones."""
    longest, cut = context.params.max_length, 0
    captions = []
    for texts in data.train.captions.references:
        encoded = [ready.template.encode(text, longest) for text in texts]
        cut += sum(was_cut for _, was_cut in encoded)
        captions.append([ids for ids, _ in encoded])
    if cut:
        context.emit.notice("texts-truncated", f"{cut} captions were cut at {longest} tokens", cut)
    return TokenizedCaptions(captions)

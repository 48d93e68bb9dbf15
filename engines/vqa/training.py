"""Builds the training of a VQA run: order, batches, loss, optimizer, weight averages."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from engines.torchkit.checkpointing.training_identity import fingerprint_samples
from engines.torchkit.modeling import adapter_copies
from engines.torchkit.training import compilation, loop
from engines.torchkit.training.training_setup import TrainingSetup
from engines.torchkit.training.weight_averaging import Ema, Swa
from engines.vqa.context import Context
from engines.vqa.data.batches import QuestionCollator
from engines.vqa.data.dataset import VqaData
from engines.vqa.models.model import VqaBatch
from engines.vqa.prepare import PreparedAnswerer
from engines.vqa.validation import QuestionValidation

Job = loop.TrainingJob[VqaBatch]


def set_up_training(context: Context, data: VqaData, ready: PreparedAnswerer) -> TrainingSetup:
    """Steps, batch order and identity of the training."""
    pictures = ready.vision.pictures.contents(data.train.root, data.train.paths)
    parts = (*data.train.ids, pictures)
    samples = fingerprint_samples(data.fingerprint + data.paraphrases_fact, parts)
    return TrainingSetup.from_run(context, len(data.train), samples)


def create_training_job(
    setup: TrainingSetup, data: VqaData, ready: PreparedAnswerer, validation: QuestionValidation
) -> Job:
    """The training of the run as the loop takes it."""
    context: Context = setup.run
    params, model, process_group = context.params, ready.model, context.process_group
    collator = QuestionCollator(
        ready.vision, data.train, context.spec.seed, shuffle=params.shuffle_choices
    )

    def example() -> Any:
        some = collator.to_device(collator(np.zeros(1, np.int64), 0), context.device)
        with context.precision.autocast():
            return model(some.inputs(), some.labels)

    answer = process_group.wrap(model, example)
    if params.compile:
        model.compile(dynamic=True)

    def forward(batch: VqaBatch) -> loop.LossOutput:
        local_outputs = answer(batch.inputs(), batch.labels)
        nats, tokens, hits = (process_group.gather(output, len(batch)) for output in local_outputs)
        metrics = {"letter_accuracy": hits.mean(), **validation.latest}
        share = len(batch) / len(batch.ids)  # of this rank
        return loop.LossOutput(
            nats.sum() / tokens.sum(), metrics, len(batch), batch.mask.sum() * share
        )

    def transfer(batch: VqaBatch) -> VqaBatch:
        return collator.to_device(batch, context.device)

    job = setup.create_job(model, collator, forward, transfer)
    if params.compile:
        job.prepare = compilation.compile_on_first_batch(job)
    else:  # compiled code converts weights on the way
        job.weight_copies = adapter_copies.copy_adapters(
            model, context.precision.name, process_group.size
        )
    job.ema = Ema(model, params.ema) if params.ema and not params.swa else None
    first_averaged = math.floor(params.swa_start * setup.steps) + 1
    job.swa = Swa(model, first_averaged) if params.swa else None
    validation.averages = job.averages
    return job

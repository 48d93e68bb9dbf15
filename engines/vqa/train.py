"""What the loop needs of a VQA run: order, batches, loss, optimizer, averages."""

from __future__ import annotations

import math

from engines.torchkit import loop
from engines.torchkit.batches import Loader, Order
from engines.torchkit.ema import Ema, Swa
from engines.torchkit.optimizers import adamw
from engines.torchkit.schedules import planned_steps, warmup_cosine, warmup_steps
from engines.vqa.batches import Gatherer
from engines.vqa.context import Context
from engines.vqa.data import Data
from engines.vqa.model import VqaBatch
from engines.vqa.prepare import Prepared
from engines.vqa.watch import Watch

Job = loop.Training[VqaBatch]


def assemble(context: Context, data: Data, ready: Prepared, watch: Watch) -> Job:
    """Everything that the loop needs."""
    params, model, target = context.params, ready.model, context.device
    seed, team = context.spec.seed, context.team
    order = Order(len(data.train), params.batch * team.size, params.accumulation, seed)
    shuffle = params.shuffle_choices
    gatherer = Gatherer(ready.pictures, data.train, seed, shuffle=shuffle)
    gatherer.place = (team.rank, team.size)
    gatherer.pin = params.pin_memory and target.type == "cuda"
    steps = planned_steps(params.epochs, params.max_steps, order.steps_per_epoch)
    warm = warmup_steps(steps, params.warmup_ratio, params.warmup_steps)
    if params.compile:
        model.compile(dynamic=True)
    answer = team.wrap(model)

    def forward(batch: VqaBatch) -> loop.Outcome:
        own = answer(batch.inputs(), batch.labels)
        nats, tokens, hits = (team.gather(one, len(batch)) for one in own)
        metrics = {"letter_accuracy": hits.mean(), **watch.latest}
        return loop.Outcome(nats.sum() / tokens.sum(), metrics, len(batch))

    job = loop.Training(
        model=model,
        loader=Loader(order, gatherer, params.workers),
        transfer=lambda batch: gatherer.to_device(batch, target),
        forward=forward,
        optimizer=adamw(
            model, params.lr, params.weight_decay, (0.9, params.beta2), fused=params.fused
        ),
        lr_at=lambda step: params.lr * warmup_cosine(step, steps, warm),
        precision=context.precision,
        steps=steps,
        clip_norm=params.clip_norm,
        ema=Ema(model, params.ema) if params.ema else None,
        swa=Swa(model, math.floor(params.swa_start * steps) + 1) if params.swa else None,
        checkpoint_every=params.checkpoint_every,
        checkpoint_seconds=params.checkpoint_minutes * 60,
        checkpoint_root=context.run_dir / "checkpoints",
        full_disk_is_fatal=context.spec.on_disk_full == "stop",
        team=team,
        after_epoch=watch.after_epoch if watch.wanted else None,
    )
    watch.averages = job.averages
    return job

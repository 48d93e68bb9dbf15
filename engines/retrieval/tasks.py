"""Tasks of the retrieval engine: its data, model, training job and evaluation."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch

from engines import trained_weights
from engines.cuda_support import bf16_problem
from engines.emitter import EngineError
from engines.retrieval.context import Context
from engines.retrieval.data.items import ArrayItems
from engines.retrieval.data.pairs import PairBatch, PairCollator, has_uniform_modalities
from engines.retrieval.evaluation.evaluate import RetrievalEvaluator, make_epoch_timing
from engines.retrieval.index.encoding import CorpusEncoder, VectorStorage
from engines.retrieval.index.joint_encoding import JointCorpusEncoder
from engines.retrieval.loss import OBJECTIVES, Objective
from engines.retrieval.models import compilation, export, factory, master_weights
from engines.retrieval.params import ARCHITECTURE_PARAMS, Params
from engines.retrieval.prepare import PreparedEncoder, RetrievalData, prepare, read_data
from engines.torchkit.data.prefetch import to_device
from engines.torchkit.runtime import device
from engines.torchkit.runtime.distributed import ProcessGroup
from engines.torchkit.runtime.precision import has_bf16
from engines.torchkit.training import export as training_export
from engines.torchkit.training import loop
from engines.torchkit.training.engine_task import EngineTask, TrainingStage
from engines.torchkit.training.training_setup import TrainingSetup
from engines.torchkit.training.weight_averaging import Ema, WeightAverage

Job = loop.TrainingJob[PairBatch]


class RetrievalTask(EngineTask[Params, RetrievalData, PreparedEncoder]):
    """A run of the retrieval engine."""

    params_class = Params
    architecture = ARCHITECTURE_PARAMS
    ema: WeightAverage | None = None
    """EMA of the trained weights, which is exported and evaluated in their place."""

    def resolve_model(self, context: Context) -> Context:
        """As in every engine; refuses what this GPU or the model cannot do."""
        context = super().resolve_model(context)
        refuse_unsupported(context.params, context.device)
        refuse_training(context)
        return context

    def read_data(self) -> RetrievalData:
        """Training pairs, evaluation splits and corpora."""
        return read_data(self.context)

    def prepare(self) -> PreparedEncoder:
        """The dual encoder with its texts and images."""
        ready = prepare(self.context, self.data)
        ready.model.to(self.context.device)
        return ready

    def create_stages(self) -> list[TrainingStage]:
        """One stage."""
        setup = set_up_training(self.context, self.data, self.ready)
        return [TrainingStage(setup, lambda: create_training_job(setup, self.data, self.ready))]

    def training_facts(self, params: Params, job: Job) -> dict[str, str]:
        """Precision, negatives and corpus."""
        batch = job.loader.order.batch
        chance = f"in the micro-batch of {batch}; chance of r@1 is 1/{batch}"
        if (size := self.context.process_group.size) > 1:
            chance += f"; gathered with their gradients from {size} ranks of {params.batch} each"
        if params.gradient_accumulation_steps > 1:
            chance += "; accumulation does not add any"
        master = "" if job.weight_copies is None else ", with float32 master weights"
        return {
            "precision": self.context.precision.description + master,
            "negatives": chance,
            "duplicates": "other positives of a query are no negatives",
            "corpus": f"{len(self.data.subset.corpus)} passages",
            "openmp_wait": read_openmp_wait(),
        }

    def save(self, job: Job) -> None:
        """Save and export the encoder; its EMA is evaluated."""
        self.ema = job.ema
        super().save(job)

    def export(self) -> None:
        """Export the encoder for its library, with the weights that are evaluated."""
        context, ready = self.context, self.ready
        if sentence := export.find_refusal(context.entry):
            context.emit.notice("not-exported", sentence)
            return
        with self.ema.applied() if self.ema is not None else nullcontext():
            folder = export.make_encoder_folder(
                ready.model, context.entry, context.params, ready.pretrained, ready.tokenizer
            )
            training_export.write_export(
                context, trained_weights.ENCODER, {folder.file: folder.tensors}, folder.texts
            )

    def export_bytes(self) -> dict[str, int]:
        """The encoder folder."""
        weights = sum(p.numel() * p.element_size() for p in self.ready.model.parameters())
        return {"encoder folder": 0 if export.find_refusal(self.context.entry) else weights}

    def cache_bytes(self) -> dict[str, int]:
        """Images, and features of frozen towers."""
        side, stores = self.context.params.image_size, (self.ready.texts, self.ready.images)
        arrays = [a for items in stores if isinstance(items, ArrayItems) for a in items.arrays]
        features = sum(array.nbytes for array in arrays if array.dtype == "float16")
        images = {"image cache": len(self.data.vocabularies.images) * side * side * 3}
        return images | ({"feature cache": features} if features else {})

    def evaluate(self) -> None:
        """Evaluate all splits, with the EMA weights if there are any."""
        context, ready, splits = self.context, self.ready, self.data.splits
        if not splits:
            return
        params, emit = context.params, context.emit
        emit.phase("eval")
        with self.ema.applied() if self.ema is not None else nullcontext():
            storage = VectorStorage(context.device, params.corpus_memory_gib, context.run_dir)
            kind = JointCorpusEncoder if ready.model.joint else CorpusEncoder
            encoder = kind(
                ready.model, context.precision, params.eval_batch_size, emit, storage,
                context.pipeline,
            )  # fmt: skip
            evaluator = RetrievalEvaluator(encoder, ready.texts, ready.images, params, emit)
            costs = [evaluator.run(split, context.run_dir) for split in splits]
        if context.spec.task == "evaluate":
            emit.send(make_epoch_timing(costs))
        device.report_memory(emit, "search", context.device)


def refuse_unsupported(params: Params, target: torch.device) -> None:
    """Raise EngineError where `search_precision` is one that the GPU lacks.

    Called before anything is loaded, since the search comes last. A CPU widens every precision.
    """
    searches = params.search == "exact" and params.search_precision == "bf16"
    if searches and target.type == "cuda" and not has_bf16(target):
        raise EngineError(bf16_problem("search_precision", torch.cuda.get_device_name(target)))


def refuse_training(context: Context) -> None:
    """Raise EngineError where a model that is only evaluated is to be trained."""
    if context.spec.task != "evaluate":
        factory.refuse_training(context.entry)


def set_up_training(context: Context, data: RetrievalData, ready: PreparedEncoder) -> TrainingSetup:
    """Steps, batch order and identity of the training."""
    digest = data.pairs.digest(data.subset.fingerprint, ready.pictures)
    return TrainingSetup.from_run(context, len(data.pairs), digest)


def create_training_job(setup: TrainingSetup, data: RetrievalData, ready: PreparedEncoder) -> Job:
    """The job of the training loop: collator, replica, DDP, compilation and EMA."""
    context: Context = setup.run
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

    job = setup.create_job(model, collator, forward)
    job.weight_copies = replica
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


def read_openmp_wait() -> str:
    """Wait policy of OpenMP's threads, which changes step times by a tenth and more."""
    policy, spins = os.environ.get("OMP_WAIT_POLICY"), os.environ.get("GOMP_SPINCOUNT")
    return policy or (f"spin {spins}" if spins else "default")

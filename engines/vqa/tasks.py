"""Tasks of the VQA engine: its data, model, training job and answers."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import Any

from engines.torchkit.checkpointing import checkpoints
from engines.torchkit.checkpointing.trained_tensors import trainable_tensors
from engines.torchkit.runtime import device
from engines.torchkit.training import export
from engines.torchkit.training.engine_task import EngineTask, TrainingStage
from engines.vqa.answering import answer_split
from engines.vqa.data.dataset import VqaData, read_data
from engines.vqa.data.questions import select_stratified
from engines.vqa.ensemble.fold_runs import VALIDATION
from engines.vqa.evaluation.run_outputs import file_name, write_submission
from engines.vqa.params import ARCHITECTURE_PARAMS, Params
from engines.vqa.prepare import PreparedAnswerer, prepare
from engines.vqa.training import Job, create_training_job, set_up_training
from engines.vqa.validation import QuestionValidation


class VqaTask(EngineTask[Params, VqaData, PreparedAnswerer]):
    """A run of the VQA engine, but for an ensemble."""

    params_class = Params
    architecture = ARCHITECTURE_PARAMS

    def read_data(self) -> VqaData:
        """Questions to train on, to validate and to answer."""
        return read_data(self.context)

    def prepare(self) -> PreparedAnswerer:
        """The model with its chat template and pictures."""
        return prepare(self.context, self.data)

    def create_stages(self) -> list[TrainingStage]:
        """One stage."""
        context, data, ready = self.context, self.data, self.ready
        if context.params.ema and context.params.swa:
            text = "ema and swa: SWA answers, so no EMA is kept; set one of them"
            context.emit.notice("ema-unused", text)
        setup = set_up_training(context, data, ready)
        validation = QuestionValidation(context, data, ready)
        create = partial(create_training_job, setup, data, ready, validation)
        return [TrainingStage(setup, create, validation)]

    def training_facts(self, params: Params, job: Job) -> dict[str, str]:
        """Gradient checkpointing, and the weights that answer."""
        names = [name.upper() for name in job.averages]
        return {
            "gradient_checkpointing": "non-reentrant" if params.gradient_checkpointing else "off",
            "answering_weights": f"{names[-1]} of the trained ones" if names else "the last",
        }

    def export(self) -> None:
        """Export the adapters."""
        export.write_adapter(self.context, self.ready.model.model, self.context.entry)

    def cache_bytes(self) -> dict[str, int]:
        """Decoded pictures, and features."""
        vision = self.ready.vision
        features = {"feature cache": vision.cached.bytes} if vision.cached else {}
        return {"picture cache": vision.pictures.bytes, **features}

    def evaluate(self) -> None:
        """Answer the held-out questions, then all splits; the submission last."""
        context, data, ready = self.context, self.data, self.ready
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
                    context.emit, path, answers, params.sample_submission, data.submission_subset
                )
        device.report_memory(context.emit, "generate", context.device)


def weights_digest(model: Any) -> str:
    """Digest of the trainable weights; stored answers count for equal weights only."""
    hasher = hashlib.blake2b(digest_size=16)
    for name, tensor in trainable_tensors(model).items():
        hasher.update(name.encode())
        hasher.update(checkpoints.raw_bytes(tensor))
    return hasher.hexdigest()

"""Tasks of the captioning engine: its data, model, training stages and evaluation."""

from __future__ import annotations

import shutil
from pathlib import Path

from engines import trained_weights
from engines.captioning import training
from engines.captioning.components import resolve_part
from engines.captioning.context import Context
from engines.captioning.data.dataset import CaptioningData, read_data
from engines.captioning.evaluation.evaluate import Evaluator
from engines.captioning.evaluation.image_text_score import ImageTextScorer
from engines.captioning.metrics import bert_score, clip_score
from engines.captioning.models.vision import VisionTower
from engines.captioning.params import ARCHITECTURE_PARAMS, Params
from engines.captioning.prepare import PreparedCaptioner, prepare
from engines.captioning.training import Job
from engines.emitter import EngineError
from engines.torchkit.checkpointing import checkpoints
from engines.torchkit.modeling import lora
from engines.torchkit.modeling.eval_mode import eval_mode
from engines.torchkit.runtime import device
from engines.torchkit.training import export, trained_model
from engines.torchkit.training.early_stopping import LAST_EPOCH
from engines.torchkit.training.engine_task import EngineTask, TrainingStage
from results.text import metric_names


class CaptioningTask(EngineTask[Params, CaptioningData, PreparedCaptioner]):
    """A run of the captioning engine."""

    params_class = Params
    architecture = ARCHITECTURE_PARAMS
    tower: VisionTower
    evaluator: Evaluator

    def resolve_model(self, context: Context) -> Context:
        """As in every engine; checks the judges of captions before hours of training."""
        if context.spec.task != "probe":
            check_judges(context.params, context.spec.task)
        return resolve_model(context)

    def read_data(self) -> CaptioningData:
        """Captions and decoded media, in the size of the vision tower."""
        context = self.context
        device.set_convolution_benchmark(fixed=True)  # every pass of the tower has one shape
        part = resolve_part(context, "vision")
        self.tower = VisionTower(part, context.params, context.precision)
        return read_data(context, self.tower.shape.image_size)

    def prepare(self) -> PreparedCaptioner:
        """The captioner with its inputs."""
        ready = prepare(self.context, self.data, self.tower)
        scorer = ImageTextScorer(self.context, self.data.pixels, self.data.train, ready)
        self.evaluator = Evaluator(self.context, ready, scorer)
        return ready

    def create_stages(self) -> list[TrainingStage]:
        """The stages; calibrates a projector that is not trained yet."""
        if self.context.trained is None:
            features = training.calibration_features(self.data, self.ready)
            self.ready.model.calibrate(features)
        return training.set_up_stages(self.context, self.data, self.ready, self.evaluator)

    def training_facts(self, params: Params, job: Job) -> dict[str, str]:
        """Schedule, gradient checkpointing, and what is trained."""
        return {
            "schedule": f"linear warm-up, then {params.schedule}",
            "gradient_checkpointing": "non-reentrant" if params.gradient_checkpointing else "off",
            "trainable": lora.list_trainable(job.model),
        }

    def save(self, job: Job) -> None:
        """Save what all stages trained."""
        self.ready.model.train_parts(self.context.params.parts_of_stages)
        super().save(job)

    def export(self) -> None:
        """Export the adapters, if any were trained."""
        if "lora" in self.context.params.parts_of_stages:
            part = resolve_part(self.context, "llm")
            export.write_adapter(self.context, self.ready.model.llm, part)

    def cache_bytes(self) -> dict[str, int]:
        """Decoded media, and features."""
        features = {"feature cache": self.ready.items.nbytes}
        cached = features if self.context.params.feature_cache else {}
        return {"image cache": self.data.pixels.nbytes, **cached}

    def evaluate(self) -> None:
        """Evaluate a sample of the training media, then all splits; `infer`: caption all media."""
        context, data, evaluator = self.context, self.data, self.evaluator
        params = context.params
        if context.spec.task == "train" and params.evaluate_last:
            self.evaluate_last_weights()
        if params.merge_lora and params.lora_rank:
            context.emit.phase("load", "LoRA merged into the weights")
            with eval_mode(self.ready.model):
                lora.merge_adapters(self.ready.model.llm)
        if context.spec.task == "infer":
            evaluator.caption_split(data.splits[0], data.listed)
        else:
            if context.spec.task == "train" and params.evaluate_train:
                evaluator.evaluate_split(data.train.select_evenly(params.evaluate_train), "train")
            for split in data.splits:
                evaluator.evaluate_split(split.select_evenly(params.evaluate_limit), split.name)
        shutil.rmtree(last_epoch_folder(context), ignore_errors=True)
        device.report_memory(context.emit, "generate", context.device)

    def evaluate_last_weights(self) -> None:
        """Evaluate all splits with the last epoch's weights, where the best ones replaced them.

        These stay on disk to the run's end, so that a resumed run evaluates them again.
        """
        context, model = self.context, self.ready.model
        folder = last_epoch_folder(context)
        if checkpoints.find_problem(folder):
            return
        last = checkpoints.load(folder, context.device)[0]["model"]
        kept = {name: model.state_dict()[name].clone() for name in last}
        model.load_state_dict(last, strict=False)
        for split in self.data.splits:
            chosen = split.select_evenly(context.params.evaluate_limit)
            self.evaluator.evaluate_split(chosen, split.name, metric_names.LAST_EPOCH)
        model.load_state_dict(kept, strict=False)


def last_epoch_folder(context: Context) -> Path:
    """Weights of the last epoch, where the best ones replaced them."""
    return context.run_dir / trained_weights.CHECKPOINTS / LAST_EPOCH


def check_judges(params: Params, task: str) -> None:
    """Find the models that score captions.

    Raises:
        EngineError: one is not on this machine, or BERTScore's has no such layer.
    """
    if "siglip" in params.scorers and params.siglip:
        clip_score.find_folder(params.siglip)
    if "bertscore" in params.scorers and params.bert_score and task != "infer":
        bert_score.read_encoder(params.bert_score, params.bert_score_layer)


def resolve_model(context: Context) -> Context:
    """The context with the trained model that its spec names, if any.

    Raises:
        EngineError: the run that trained it left no checkpoint, or nothing was trained.
    """
    if context.entry.family != "run" and context.spec.task in ("evaluate", "infer"):
        raise EngineError(
            f"model '{context.spec.model}': its projector was never trained; name a run's "
            "model, run:<id>, or use task = train"
        )
    return trained_model.resolve_trained_model(context, ARCHITECTURE_PARAMS)

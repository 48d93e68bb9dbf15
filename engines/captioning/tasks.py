"""Tasks of the captioning engine: its data, model, training stages and evaluation."""

from __future__ import annotations

from engines.captioning import training
from engines.captioning.components import resolve_part
from engines.captioning.context import Context
from engines.captioning.data.dataset import CaptioningData, read_data
from engines.captioning.evaluation.evaluate import Evaluator
from engines.captioning.evaluation.image_text_score import ImageTextScorer
from engines.captioning.metrics import clip_score
from engines.captioning.models.vision import VisionTower
from engines.captioning.params import ARCHITECTURE_PARAMS, Params
from engines.captioning.prepare import PreparedCaptioner, prepare
from engines.captioning.training import Job
from engines.emitter import EngineError
from engines.torchkit.modeling import lora
from engines.torchkit.runtime import device
from engines.torchkit.training import export, trained_model
from engines.torchkit.training.early_stopping import eval_mode
from engines.torchkit.training.engine_task import EngineTask
from engines.torchkit.training.timed_training import TrainingStage


class CaptioningTask(EngineTask[Params, CaptioningData, PreparedCaptioner]):
    """A run of the captioning engine."""

    params_class = Params
    architecture = ARCHITECTURE_PARAMS
    tower: VisionTower
    evaluator: Evaluator

    def resolve_model(self, context: Context) -> Context:
        """As in every engine; checks the judge of captions before hours of training."""
        params = context.params
        if "siglip" in params.scorers and params.siglip and context.spec.task != "probe":
            clip_score.find_folder(params.siglip)
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
        device.report_memory(context.emit, "generate", context.device)


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

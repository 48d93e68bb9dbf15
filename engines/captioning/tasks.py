"""The phases of a captioning run in their order, from spec to metrics."""

from __future__ import annotations

from pathlib import Path

from engines.captioning import training
from engines.captioning.components import resolve_part
from engines.captioning.context import Context
from engines.captioning.data.dataset import CaptioningData, read_data
from engines.captioning.evaluation.evaluate import Evaluator
from engines.captioning.evaluation.image_text_score import ImageTextScorer
from engines.captioning.metrics import clip_score
from engines.captioning.models.vision import VisionTower
from engines.captioning.params import ARCHITECTURE_PARAMS, Params
from engines.captioning.prepare import prepare
from engines.emitter import Emitter, EngineError
from engines.protocol import RunSpec
from engines.torchkit.modeling import lora
from engines.torchkit.runtime import device, run_setup
from engines.torchkit.training import trained_model
from engines.torchkit.training.early_stopping import eval_mode


def run(spec: RunSpec, emit: Emitter, run_dir: Path) -> None:
    """Train on the subset and evaluate, only evaluate, or only caption."""
    params = Params.model_validate(spec.params)
    context = resolve_model(run_setup.begin_run(spec, params, emit, run_dir))
    if "siglip" in params.scorers and params.siglip and spec.task != "probe":
        clip_score.find_folder(params.siglip)  # before hours of training, not after them
    target = context.device
    device.set_convolution_benchmark(fixed=True)  # every pass of the towerhas one shape
    with context.process_group.rank_zero_first(emit):
        emit.phase("build")
        tower = VisionTower(resolve_part(context, "vision"), context.params, context.precision)
        data = read_data(context, tower.shape.image_size)
        device.report_memory(emit, "build", target)
        ready = prepare(context, data, tower)
    device.report_memory(emit, "load", target)
    if context.trained is not None:
        trained_model.check_base_weights(context.trained, ready.state["base_weights"])
        trained_model.load_trained_weights(ready.model, context.trained)
    evaluator = Evaluator(context, ready, ImageTextScorer(context, data.pixels, data.train, ready))
    if spec.task in ("train", "probe"):
        if not training.train(context, data, ready, evaluator):
            return
    else:
        training.send_plan(context, data, ready)
    if params.merge_lora and context.params.lora_rank:
        emit.phase("load", "LoRA merged into the weights")
        with eval_mode(ready.model):
            lora.merge_adapters(ready.model.llm)
    evaluate_splits(context, data, evaluator)
    device.report_memory(emit, "generate", target)


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


def evaluate_splits(context: Context, data: CaptioningData, evaluator: Evaluator) -> None:
    """Evaluate a sample of the training media, then all splits; `infer`: caption every medium."""
    params = context.params
    if context.spec.task == "infer":
        evaluator.caption_split(data.splits[0], data.listed)
        return
    if context.spec.task == "train" and params.evaluate_train:
        evaluator.evaluate_split(data.train.select_evenly(params.evaluate_train), "train")
    for split in data.splits:
        evaluator.evaluate_split(split.select_evenly(params.evaluate_limit), split.name)

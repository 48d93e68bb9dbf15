"""Prepares a VQA model: processor, pictures, weights, adapters.

Each step is a phase of its own, so that the time to the first step can be read step by step.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from engines import model_catalog
from engines.emitter import EngineError, first_line
from engines.torchkit.data.data_loader import split_rows
from engines.torchkit.data.prefetch import InputPipeline
from engines.torchkit.modeling import lora, pretrained, quantize, rms_norm
from engines.torchkit.modeling.gradient_checkpointing import enable_gradient_checkpointing
from engines.torchkit.runtime import device
from engines.torchkit.training import nano_models, trained_model
from engines.torchkit.training.engine_task import PreparedModel
from engines.vqa.context import Context
from engines.vqa.data import batches, feature_cache, questions
from engines.vqa.data.batches import Rows
from engines.vqa.data.dataset import VqaData
from engines.vqa.data.image_inputs import ImageInputs
from engines.vqa.data.images import Pictures, SizeLimits
from engines.vqa.data.option_order import IDENTITY, Permutation
from engines.vqa.data.questions import Questions
from engines.vqa.models import chat_template
from engines.vqa.models import processor as models_processor
from engines.vqa.models.chat_template import ChatTemplate, ChoicePrompt
from engines.vqa.models.model import Answerer, VqaBatch
from engines.vqa.models.processor import ImageTextProcessor
from engines.vqa.nano import model
from engines.vqa.params import Params


@dataclass(frozen=True, kw_only=True)
class PreparedAnswerer(PreparedModel):
    """A model with its chat template and image inputs, ready to train or to answer."""

    model: Answerer
    template: ChatTemplate
    vision: ImageInputs
    pipeline: InputPipeline
    batch: int
    """Questions answered at once."""
    tower_parameters: int = 0
    """Parameters of a vision tower that was released when its features were cached."""

    @property
    def parameters(self) -> int:
        """Number of all parameters, those of a released vision tower among them."""
        return super().parameters + self.tower_parameters

    def batches(
        self,
        questions: Questions,
        rows: Sequence[int] | Rows,
        scale: float = 1.0,
        permutation: Permutation = IDENTITY,
        *,
        blank: bool = False,
        ahead: bool = True,
    ) -> Iterator[VqaBatch]:
        """Batches of the questions `rows` without their answers, on the device, in this order.

        Letter i shows option `permutation[i]`. `blank`: pictures of the mean colour only; `ahead`:
        see `ImageInputs.batch`.
        """

        def gather(rows: Rows) -> VqaBatch:
            presentation = ([permutation] * len(rows), scale, False)
            return batches.collate_questions(
                self.vision, questions, rows, presentation, blank=blank, ahead=ahead
            )

        parts = split_rows(np.asarray(rows), self.batch)
        for _, batch in self.pipeline.batches(parts, gather):
            yield self.vision.to_device(batch)  # already there: only normalizes pixels


def prepare(context: Context, data: VqaData) -> PreparedAnswerer:
    """Load or build the model of the spec, and decode the pictures of all its questions.

    Raises:
        EngineError: weights are missing, settings do not fit the model, a picture cannot be read.
    """
    params, emit = context.params, context.emit
    emit.phase("import", "transformers")
    folder, base_fact = prepare_model_folder(context, data)
    pretrained.validate_vision_language(folder)
    hf_processor = load_hf_processor(folder)
    template = read_template(hf_processor, params, data, folder)
    processor = models_processor.create_processor(hf_processor, template, folder)
    pictures = decode_pictures(context, data, processor)
    longest = check_lengths(context, template, pictures, data)
    emit.phase("load", context.entry.name)
    base_model = pretrained.load(
        folder, pretrained.VISION_LANGUAGE, context.precision, four_bit=params.quantize == "nf4",
        double=params.double_quant,
    )  # fmt: skip
    weights = describe_weights(base_model)
    total_parameters = quantize.logical_parameters(base_model)
    vision, cache_fact = feature_cache.prepare_images(context, data, pictures, base_model)
    if vision.cached is not None:
        emit.phase("load", "adapters")
    tower_parameters = total_parameters - quantize.logical_parameters(base_model)
    if not params.compile:  # after the tower's pass: features of an earlier cache stay valid
        rms_norm.use_fused_rms_norm(base_model)
    model = Answerer(attach_adapters(context, base_model), vision.form).to(context.device)
    facts = {
        "model": f"{folder.name}, {base_fact}{weights}",
        "picture_tokens": describe_picture_tokens(pictures, data),
        "longest_sample": f"{longest:,} tokens with its picture",
        "folds": data.folds_fact,
        **({"paraphrases": data.paraphrases_fact} if data.paraphrases_fact else {}),
        "trainable": lora.list_trainable(model),
        "feature_cache": cache_fact,
    }
    scratch = model_catalog.weights_folder(context.entry) is None
    revision = (
        model_catalog.cached_revision(context.entry) if context.entry.hub else str(folder.name)
    )
    return PreparedAnswerer(
        model=model, template=template, vision=vision, pipeline=context.pipeline,
        batch=params.eval_batch_size, revision=revision, facts=facts,
        state=base_state(context, folder, scratch=scratch), tower_parameters=tower_parameters,
        base=folder if scratch else None,
    )  # fmt: skip


def decode_pictures(context: Context, data: VqaData, processor: ImageTextProcessor) -> Pictures:
    """The pictures of all splits at the scales of the run; warns of scales that change nothing."""
    params = context.params
    context.emit.phase("cache", "pictures")
    limits = SizeLimits.from_params(params, processor.factor)
    pictures = Pictures(processor, limits, context.cache_root, context.report_progress)
    for split in (data.train, data.validation, *data.splits.values()):
        pictures.add(split.root, split.paths, (1.0, *params.tta_scales))
    warn_of_void_scales(context, pictures, data)
    return pictures


def describe_weights(model: Any) -> str:
    """Which weights are in 4 bits, and the size of all."""
    four_bit = len(quantize.four_bit_layers(model))
    kinds = f"{four_bit} linear layers in NF4, vision tower whole" if four_bit else "whole"
    return f"{kinds}, {quantize.weight_bytes(model) / 2**20:.1f} MiB"


def read_template(processor: Any, params: Params, data: VqaData, folder: Path) -> ChatTemplate:
    """The chat template with the prompts by type of question and the forms of the letters.

    Raises:
        EngineError: the template does not fit, or a prompt is of a type that no question has.
    """
    template = chat_template.read_chat_template(processor, params.prompt, folder)
    prompts = params.prompts_by_kind()
    splits = (data.train, data.validation, *data.splits.values())
    kinds = dict.fromkeys(kind for split in splits for kind in split.kinds)
    if unknown := [kind for kind in prompts if kind not in kinds]:
        raise EngineError(
            f"prompts: no question is of type '{unknown[0]}'; there are {', '.join(sorted(kinds))}"
        )
    forms = params.letter_forms
    return replace(
        template, prompts=prompts,
        forms=chat_template.find_letter_forms(template, processor.tokenizer) if forms else (),
    )  # fmt: skip


def base_state(context: Context, folder: Path, *, scratch: bool) -> dict[str, Any]:
    """Name of the base and digest of its weights, for a later run."""
    name = str(context.trained.state["base"]) if context.trained and scratch else folder.name
    prints = {"model": trained_model.weights_digest(folder)}
    return {"base": name if scratch else "", "base_weights": prints}


def check_lengths(
    context: Context, template: ChatTemplate, pictures: Pictures, data: VqaData
) -> int:
    """Check the lengths of all questions; returns the tokens of the longest one with its answer.

    Every scale is checked: where a processor makes tiles, a smaller picture can have more tokens.

    Raises:
        EngineError: a question exceeds `max_length`. Truncating it would cut its image tokens.
    """
    params, longest = context.params, 0
    for split in (data.train, data.validation, *data.splits.values()):
        scales = (1.0,) if split is data.train else (1.0, *params.tta_scales)
        for row, text_tokens in enumerate(_count_text_tokens(template, split)):
            location = split.root, split.paths[row]
            image_tokens = max(pictures.tokens(*location, scale) for scale in scales)
            length = text_tokens - 1 + image_tokens
            longest = max(longest, length)
            if length > params.max_length:
                raise EngineError(
                    f"max_length: question '{split.ids[row]}' has {length:,} tokens, "
                    f"{image_tokens:,} of them its picture's, and {params.max_length:,} are "
                    "allowed; lower long_side or max_pixels, or raise max_length"
                )
    return longest


def _count_text_tokens(template: ChatTemplate, questions: Questions) -> list[int]:
    """Text tokens of each question with options and answer [n], of the longest of its wordings."""
    if questions.wordings is None:
        prompts = [
            ChoicePrompt(text, options, "a", kind)
            for text, options, kind in zip(
                questions.texts, questions.options, questions.kinds, strict=True
            )
        ]
        return template.count_tokens(prompts)
    rows = [row for row, wordings in enumerate(questions.wordings) for _ in wordings]
    texts = [text for wordings in questions.wordings for text in wordings]
    lengths = template.count_tokens(
        [
            ChoicePrompt(text, questions.options[row], "a", questions.kinds[row])
            for row, text in zip(rows, texts, strict=True)
        ]
    )
    longest = [0] * len(questions)
    for row, length in zip(rows, lengths, strict=True):
        longest[row] = max(longest[row], length)
    return longest


def warn_of_void_scales(context: Context, pictures: Pictures, data: VqaData) -> None:
    """Emit a notice for each TTA scale that leaves the size of every picture unchanged."""
    splits = (data.validation, *data.splits.values())
    for scale in context.params.tta_scales:
        if scale != 1 and all(
            pictures.all_same_size(split.root, split.paths, scale) for split in splits
        ):
            context.emit.notice(
                "scale-void",
                f"tta_scales: at {scale:g} every picture rounds to the same tokens as at 1, so it "
                "adds nothing; take one farther from 1, or a larger long_side",
            )


def attach_adapters(context: Context, model: Any) -> Any:
    """Attach LoRA to the language model from the seed; gradient checkpointing as set."""
    params = context.params
    if params.gradient_checkpointing:
        enable_gradient_checkpointing(model)
    device.seed_generators(
        context.spec.seed
    )  # whatever was drawn while a base was made or weights loaded
    return lora.add_lora(
        model, params.lora_rank, params.lora_alpha, params.lora_dropout, params.lora_targets,
        pretrained.language_module_name(model),
    )  # fmt: skip


def load_hf_processor(folder: Path) -> Any:
    """Load the processor of a folder; code in the folder is not run.

    Raises:
        EngineError: it cannot be read.
    """
    library: Any = importlib.import_module("transformers")
    try:
        return library.AutoProcessor.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise EngineError(f"{folder}: no sound processor ({first_line(error)})") from None


def prepare_model_folder(context: Context, data: VqaData) -> tuple[Path, str]:
    """Folder of the model and a fact for the record; trains a base from scratch first."""
    folder = model_catalog.weights_folder(context.entry)
    if folder is not None:
        return folder, ""
    if context.trained is not None:
        base = nano_models.find_base(context.cache_root, context.trained)
    else:
        base_questions = read_base_questions(context, data)
        context.emit.phase("cache", "base from scratch, with all its parameters")
        base = model.get_or_train_nano_model(
            base_questions, dict(context.entry.architecture), context.cache_root, context.device,
            context.report_progress,
        )  # fmt: skip
    return base.folder, f"{base.description}; "


def read_base_questions(context: Context, data: VqaData) -> Questions:
    """The questions on which a base from scratch is trained.

    Raises:
        EngineError: no subset is set, or it shares pictures with those of the run.
    """
    name = context.params.base_on
    if not name:
        raise EngineError(
            f"model '{context.entry.name}': is made from scratch, and base_on is empty; name the "
            "subset that it learns first, easy_vqa_base"
        )
    base_questions = questions.read_questions(context.source.build(name, context.emit))
    splits = (data.train, data.validation, *data.splits.values())
    pictures = {picture for split in splits for picture in split.groups()}
    if shared := pictures.intersection(base_questions.groups()):
        raise EngineError(
            f"base_on: {len(shared)} pictures of '{name}' are among this run's own; what the base "
            "has seen cannot be held out; take a subset of other pictures"
        )
    return base_questions


def describe_picture_tokens(pictures: Pictures, data: VqaData) -> str:
    """Fewest and most tokens of a picture, in words."""
    counts = {
        pictures.tokens(split.root, path)
        for split in (data.train, data.validation, *data.splits.values())
        for path in set(split.paths)
    }
    return f"{min(counts)} to {max(counts)}" if len(counts) > 1 else str(next(iter(counts), 0))

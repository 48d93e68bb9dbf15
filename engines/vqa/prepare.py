"""From a spec to a model that is ready: processor, weights, adapters, pictures.

Each part is a phase of its own, so that a run's time to first step can be read apart.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engines import model_catalog
from engines.emitter import EngineError
from engines.torchkit.data.data_loader import split_rows
from engines.torchkit.data.prefetch import InputPipeline
from engines.torchkit.modeling import lora, pretrained, quantize
from engines.torchkit.runtime import device
from engines.torchkit.training import nano_models, trained_model
from engines.vqa.context import Context
from engines.vqa.data import batches, feature_cache, questions
from engines.vqa.data.batches import Rows
from engines.vqa.data.dataset import Data
from engines.vqa.data.image_inputs import Vision
from engines.vqa.data.images import Limits, Pictures
from engines.vqa.data.option_order import IDENTITY, Permutation
from engines.vqa.data.questions import Questions
from engines.vqa.models import chat_template
from engines.vqa.models import processor as models_processor
from engines.vqa.models.chat_template import Said, Wording
from engines.vqa.models.model import Answerer, VqaBatch
from engines.vqa.nano import model


@dataclass(frozen=True)
class Prepared:
    """A model with its words and pictures, ready to train or to answer."""

    model: Answerer
    wording: Wording
    vision: Vision
    pipeline: InputPipeline
    batch: int
    """Questions answered at once."""
    revision: str
    facts: dict[str, str]
    state: dict[str, Any]
    """What a later run needs to build the same model."""
    parameters: int
    """Of the whole model, a tower that was given back among them."""
    base: Path | None = None
    """Folder of the base from scratch; None: the model's weights are from elsewhere."""

    def batches(
        self,
        asked: Questions,
        rows: Sequence[int] | Rows,
        scale: float = 1.0,
        permutation: Permutation = IDENTITY,
        *,
        blank: bool = False,
        ahead: bool = True,
    ) -> Iterator[VqaBatch]:
        """These questions without their answers, on the device, `batch` at a time, in this order.

        At letter i stands option `permutation[i]`. `blank`: pictures of the mean colour only;
        `ahead`: see `Vision.batch`.
        """

        def gather(some: Rows) -> VqaBatch:
            how = ([permutation] * len(some), scale, False)
            return batches.gathered(self.vision, asked, some, how, blank=blank, ahead=ahead)

        parts = split_rows(np.asarray(rows), self.batch)
        for _, batch in self.pipeline.batches(parts, gather):
            yield self.vision.to_device(batch)  # it lies there; pixels become numbers


def prepare(context: Context, data: Data) -> Prepared:
    """The model of the spec, with the pictures of all its questions.

    Raises:
        EngineError: weights are missing, settings do not fit the model, a picture cannot be read.
    """
    params, emit = context.params, context.emit
    emit.phase("import", "transformers")
    folder, base_said = model_folder(context, data)
    pretrained.validate_vision_language(folder)
    processor = load_processor(folder)
    words = chat_template.of(processor, params.prompt, folder)
    seeing = models_processor.of(processor, words, folder)
    emit.phase("cache", "pictures")
    limits = Limits.of(params, seeing.factor)
    pictures = Pictures(seeing, limits, context.cache_root, context.report_progress)
    for asked in (data.train, data.validation, *data.splits.values()):
        pictures.add(asked.root, asked.paths, (1.0, *params.tta_scales))
    tell_void_scales(context, pictures, data)
    longest = refuse_long(context, words, pictures, data)
    emit.phase("load", context.entry.name)
    found = pretrained.load(
        folder, pretrained.VISION_LANGUAGE, context.precision, four_bit=params.quantize == "nf4",
        double=params.double_quant,
    )  # fmt: skip
    held, four_bit = quantize.weight_bytes(found), len(quantize.four_bit_layers(found))
    whole = quantize.logical_parameters(found)
    vision, cache_said = feature_cache.prepare(context, data, pictures, found)
    if vision.kept is not None:
        emit.phase("load", "adapters")
    seen = whole - quantize.logical_parameters(found)
    model = Answerer(adapt(context, found), vision.form).to(context.device)
    weights = f"{four_bit} linear layers in NF4, vision tower whole" if four_bit else "whole"
    facts = {
        "model": f"{folder.name}, {base_said}{weights}, {held / 2**20:.1f} MiB",
        "picture_tokens": tokens_said(pictures, data),
        "longest_sample": f"{longest:,} tokens with its picture",
        "folds": data.dealt,
        **({"paraphrases": data.worded} if data.worded else {}),
        "trainable": lora.list_trainable(model),
        "feature_cache": cache_said,
    }
    scratch = model_catalog.weights_folder(context.entry) is None
    revision = (
        model_catalog.cached_revision(context.entry) if context.entry.hub else str(folder.name)
    )
    return Prepared(
        model, words, vision, context.pipeline, params.predict_batch, revision, facts,
        base_state(context, folder, scratch=scratch), quantize.logical_parameters(model) + seen,
        folder if scratch else None,
    )  # fmt: skip


def base_state(context: Context, folder: Path, *, scratch: bool) -> dict[str, Any]:
    """What a later run needs to find the same base, and to know it by its weights."""
    name = str(context.trained.state["base"]) if context.trained and scratch else folder.name
    prints = {"model": trained_model.weights_digest(folder)}
    return {"base": name if scratch else "", "base_weights": prints}


def refuse_long(context: Context, words: Wording, pictures: Pictures, data: Data) -> int:
    """Tokens of the longest question with its picture at the scale of most, and its answer.

    Every scale is looked at: where a processor makes tiles, a smaller picture can be more tokens.

    Raises:
        EngineError: one is longer than `max_length`. Cutting it would cut the picture's tokens.
    """
    params, longest = context.params, 0
    for asked in (data.train, data.validation, *data.splits.values()):
        scales = (1.0,) if asked is data.train else (1.0, *params.tta_scales)
        for row, words_alone in enumerate(_text_lengths(words, asked)):
            place = asked.root, asked.paths[row]
            seen = max(pictures.tokens(*place, scale) for scale in scales)
            length = words_alone - 1 + seen
            longest = max(longest, length)
            if length > params.max_length:
                raise EngineError(
                    f"max_length: question '{asked.ids[row]}' has {length:,} tokens, {seen:,} of "
                    f"them its picture's, and {params.max_length:,} are allowed; lower long_side "
                    "or max_pixels, or raise max_length"
                )
    return longest


def _text_lengths(words: Wording, asked: Questions) -> list[int]:
    """Tokens of each question with its options and an answer; of the longest of its wordings."""
    if asked.wordings is None:
        said = [Said(*one, "a") for one in zip(asked.texts, asked.options, strict=True)]
        return words.lengths(said)
    rows = [row for row, known in enumerate(asked.wordings) for _ in known]
    texts = [text for known in asked.wordings for text in known]
    found = words.lengths(
        [Said(t, asked.options[r], "a") for r, t in zip(rows, texts, strict=True)]
    )
    longest = [0] * len(asked)
    for row, length in zip(rows, found, strict=True):
        longest[row] = max(longest[row], length)
    return longest


def tell_void_scales(context: Context, pictures: Pictures, data: Data) -> None:
    """Which scales of TTA give every picture the tokens that it has anyway."""
    asked = (data.validation, *data.splits.values())
    for scale in context.params.tta_scales:
        if scale != 1 and all(pictures.same(some.root, some.paths, scale) for some in asked):
            context.emit.notice(
                "scale-void",
                f"tta_scales: at {scale:g} every picture rounds to the same tokens as at 1, so it "
                "adds nothing; take one farther from 1, or a larger long_side",
            )


def adapt(context: Context, found: Any) -> Any:
    """The model with LoRA on its language model alone, from the run's seed."""
    params = context.params
    if params.checkpointing:
        pretrained.enable_gradient_checkpointing(found)
    device.seed_generators(
        context.spec.seed
    )  # whatever was drawn while a base was made or weights loaded
    return lora.add_lora(
        found, params.lora_rank, params.lora_alpha, params.lora_dropout, params.lora_targets,
        pretrained.language_module_name(found),
    )  # fmt: skip


def load_processor(folder: Path) -> Any:
    """The processor of a folder; no code of its own.

    Raises:
        EngineError: it cannot be read.
    """
    library: Any = importlib.import_module("transformers")
    try:
        return library.AutoProcessor.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        reason = (str(error).splitlines() or [""])[0][:200]
        raise EngineError(f"{folder}: no sound processor ({reason})") from None


def model_folder(context: Context, data: Data) -> tuple[Path, str]:
    """The model's folder, trained from scratch first where the entry says so."""
    folder = model_catalog.weights_folder(context.entry)
    if folder is not None:
        return folder, ""
    if context.trained is not None:
        made = nano_models.find_base(context.cache_root, context.trained)
    else:
        learns = read_base(context, data)
        context.emit.phase("cache", "base from scratch, with all its parameters")
        made = model.trained(
            learns, dict(context.entry.architecture), context.cache_root, context.device,
            context.report_progress,
        )  # fmt: skip
    return made.folder, f"{made.description}; "


def read_base(context: Context, data: Data) -> Questions:
    """The questions that a model from scratch learns.

    Raises:
        EngineError: none are named, or a picture of theirs is among the run's own.
    """
    name = context.params.base_on
    if not name:
        raise EngineError(
            f"model '{context.entry.name}': is made from scratch, and base_on is empty; name the "
            "subset that it learns first, easy_vqa_base"
        )
    learns = questions.read(context.source.build(name, context.emit))
    asked = (data.train, data.validation, *data.splits.values())
    own = {picture for some in asked for picture in some.groups()}
    if shared := own.intersection(learns.groups()):
        raise EngineError(
            f"base_on: {len(shared)} pictures of '{name}' are among this run's own; what the base "
            "has seen cannot be held out; take a subset of other pictures"
        )
    return learns


def tokens_said(pictures: Pictures, data: Data) -> str:
    """Tokens of a picture, least and most."""
    found = {
        pictures.tokens(asked.root, path)
        for asked in (data.train, data.validation, *data.splits.values())
        for path in set(asked.paths)
    }
    return f"{min(found)} to {max(found)}" if len(found) > 1 else str(next(iter(found), 0))

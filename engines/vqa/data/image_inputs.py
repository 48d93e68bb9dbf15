"""Image inputs of a model: pixels for its vision tower, or cached features.

The tower is frozen and pictures are equal in all epochs, so features can be computed once and
cached (`torchkit.modeling.feature_cache`) in the dtype of the tower: training on them is bitwise
equal to training with the tower.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from engines.torchkit.modeling import pretrained
from engines.torchkit.runtime.precision import Precision
from engines.vqa.data.images import Pictures
from engines.vqa.models.chat_template import ChoicePrompt
from engines.vqa.models.model import FEATURES, PIXELS, VqaBatch, to_device
from engines.vqa.models.processor import ImageTextProcessor, Pixels
from engines.vqa.models.qwen_layout import QwenInputLayout
from engines.vqa.models.qwen_patches import QwenPatchProcessor
from engines.vqa.models.vision_output import Form

REVISION: Final = 1
"""Incremented when equal pixels give other features, so that cached ones are not used."""
NUMPY: Final = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "uint16"}
"""Dtypes of the cache; numpy has no bfloat16, so its bits are stored as uint16."""
EMPTY_PROMPT: Final = ChoicePrompt("", (), None)


class PictureView(NamedTuple):
    """A picture at one scale; `blank`: of the mean colour only, at the same size."""

    root: Path
    path: str
    scale: float = 1.0
    blank: bool = False


@dataclass
class ImageInputs:
    """Makes the batches of a run with its pictures as pixels or features."""

    pictures: Pictures
    precision: Precision
    layout: QwenInputLayout | None = None
    form: Form | None = None
    cached: CachedPictureFeatures | None = None

    @property
    def processor(self) -> ImageTextProcessor:
        """The processor that makes batches of questions and pixels."""
        return self.pictures.processor

    def batch(
        self, prompts: Sequence[ChoicePrompt], views: Sequence[PictureView], *, ahead: bool = True
    ) -> VqaBatch:
        """Questions with their pictures, on the host.

        `ahead`: with the inputs of `QwenInputLayout`; False for `generate`, which computes them.
        """
        rows = None if self.cached is None else self.cached.gather(views)
        return self.collate(prompts, [self.pixels(view) for view in views], rows, ahead=ahead)

    def collate(
        self,
        prompts: Sequence[ChoicePrompt],
        pictures: Sequence[Pixels],
        rows: Tensor | None,
        *,
        ahead: bool,
    ) -> VqaBatch:
        """A batch of these prompts and pictures; with `rows`, features in the place of pixels."""
        if rows is None:
            batch = self.processor.batch(prompts, pictures)
        elif isinstance(self.processor, QwenPatchProcessor):
            batch = self.processor.batch_without_pixels(
                prompts, [array.shape[:2] for array in pictures]
            )
        else:
            batch = self.processor.batch(prompts, pictures)
        if rows is not None:
            vision = {name: array for name, array in batch.vision.items() if name != PIXELS}
            batch = batch.with_vision({**vision, FEATURES: rows})
        return self.layout.add_inputs(batch) if ahead and self.layout is not None else batch

    def pixels(self, view: PictureView) -> Pixels:
        """Pixels of a view, uint8 [h, w, 3]."""
        pixels = self.pictures.pixels(view.root, view.path, view.scale)
        if not view.blank:
            return pixels
        return np.broadcast_to(np.array(self.processor.mean_color, np.uint8), pixels.shape)

    def to_device(self, batch: VqaBatch) -> VqaBatch:
        """The batch on the device, pixels normalized."""
        return to_device(batch, self.precision.device, self.processor.normalize_pixels)


@dataclass(frozen=True)
class CachedPictureFeatures:
    """Features of all pictures of a run, memory-mapped."""

    arrays: list[npt.NDArray[Any]]
    places: dict[PictureView, tuple[int, int, int]]
    """Array, first row and number of rows of each view."""
    dtype: torch.dtype
    computed: int
    """Pictures that were not in the cache before."""
    bytes: int
    """Bytes of all features that the run reads."""

    def gather(self, views: Sequence[PictureView]) -> Tensor:
        """Features [rows of all views, width], copied."""
        parts = []
        for view in views:
            array, first, rows = self.places[view]
            parts.append(self.arrays[array][first : first + rows])
        return torch.from_numpy(np.concatenate(parts)).view(self.dtype)


class ModelVisionTower:
    """The vision tower of a transformers model, including its projection to the language model."""

    def __init__(self, model: Any, vision: ImageInputs) -> None:
        """`model`: the full model, before adapters are attached."""
        self._model = model
        self.vision = vision
        self.form: Form | None = None
        """Form of the output; set with `width` and `dtype` once the model has been tested."""
        self.width, self.dtype = 0, torch.float32
        self._names = pretrained.vision_modules(model)
        self._rows: dict[tuple[int, int], int] = {}

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The modules of the tower by name."""
        return {name: self._model.get_submodule(name) for name in self._names}

    @torch.no_grad()
    def image_features(self, pixels: Pixels) -> Any:
        """Output of the model's `get_image_features` for one picture."""
        vision, function = self.vision, self._model.get_image_features
        batch = vision.to_device(vision.collate([EMPTY_PROMPT], [pixels], None, ahead=True))
        parameters = inspect.signature(function).parameters.keys()
        arguments = {
            name: value
            for name, value in {**batch.vision, **batch.host}.items()
            if name in parameters or name.startswith("image_")
        }
        with vision.precision.autocast():
            return function(**arguments, return_dict=True)

    def encode(self, pixels: Pixels, form: Form | None = None) -> Tensor:
        """Features of one picture, [rows, width], bitwise independent of other pictures.

        `form`: in place of `self.form`, while the model is tested.
        """
        form = form or self.form
        if form is None:
            raise RuntimeError("the model has not been tried")
        return form.rows(self.image_features(pixels))

    def count_rows(self, size: tuple[int, int]) -> int:
        """Number of feature rows of a picture of this height and width."""
        processor = self.vision.processor
        if isinstance(processor, QwenPatchProcessor):
            return processor.count_image_tokens(*size)
        if size not in self._rows:
            blank = np.broadcast_to(np.array(processor.mean_color, np.uint8), (*size, 3))
            self._rows[size] = len(self.encode(blank))
        return self._rows[size]

    def fingerprint(self) -> str:
        """Digest of all that features depend on: weights, sizes, image transform, dtypes."""
        digest = hashlib.blake2b(digest_size=12)
        for name, module in self.modules.items():
            for path, tensor in module.state_dict().items():
                digest.update(f"{name}.{path}{tuple(tensor.shape)}{tensor.dtype}".encode())
                digest.update(tensor.contiguous().cpu().flatten().view(torch.uint8).numpy().data)
        processor = self.vision.processor
        image_processor = getattr(getattr(processor, "processor", None), "image_processor", None)
        normalization = (
            (processor.mean, processor.std, processor.frames)
            if isinstance(processor, QwenPatchProcessor)
            else ()
        )
        transform = (
            image_processor.to_json_string() if image_processor is not None else normalization
        )
        sizes = self._model.config.vision_config.to_json_string()
        parts = (REVISION, self.form, self.dtype, transform, self.vision.precision.name, sizes)
        digest.update(repr(parts).encode())
        return digest.hexdigest()

    def detach_modules(self) -> dict[str, nn.Module]:
        """Replace the modules of the tower by placeholders; returns them by name."""
        modules = self.modules
        for name in modules:
            self._set_module(name, ReleasedModule())
        return modules

    def attach_modules(self, modules: Mapping[str, nn.Module]) -> None:
        """Put detached modules back into the model."""
        for name, module in modules.items():
            self._set_module(name, module)

    def _set_module(self, name: str, module: nn.Module) -> None:
        parent, _, last = name.rpartition(".")
        setattr(self._model.get_submodule(parent), last, module)


class ReleasedModule(nn.Module):
    """Placeholder of a detached module."""

    def forward(self, *_: Any, **__: Any) -> Any:
        """Raise RuntimeError."""
        raise RuntimeError("the vision tower was given back when its features had been kept")

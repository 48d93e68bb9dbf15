"""Pictures on their way to the model: through its vision tower in every step, or from the cache.

The tower is frozen and nothing changes a picture's pixels between epochs, so what it makes of them
is computed once and kept (`torchkit.features`), in the number format in which the tower computes:
training on it changes no number that training with the tower has. Whether a kind of model takes
features in the place of pixels is tried with the model itself, before anything is computed.
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
from engines.vqa.models.chat_template import Said
from engines.vqa.models.model import FEATURES, PIXELS, VqaBatch, to_device
from engines.vqa.models.processor import Pixels, Sight
from engines.vqa.models.qwen_layout import Layout
from engines.vqa.models.qwen_patches import Patching
from engines.vqa.models.vision_output import Form

REVISION: Final = 1
"""Raised when equal pixels give other features: the old ones are then left alone."""
NUMPY: Final = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "uint16"}
"""How numbers lie in the cache; numpy has no bfloat16, so its bits are kept."""
NOTHING: Final = Said("", (), None)


class View(NamedTuple):
    """A picture at one size: its file and scale; or nothing but the mean colour at that size."""

    root: Path
    path: str
    scale: float = 1.0
    blank: bool = False


@dataclass
class Vision:
    """How the pictures of one run reach its model."""

    pictures: Pictures
    precision: Precision
    layout: Layout | None = None
    form: Form | None = None
    kept: Kept | None = None

    @property
    def sight(self) -> Sight:
        """What makes batches of questions and pixels."""
        return self.pictures.sight

    def batch(self, said: Sequence[Said], views: Sequence[View], *, ahead: bool = True) -> VqaBatch:
        """Questions with their pictures, on the host. `ahead`: with all that a forward pass reads;
        for `generate`, which computes that itself, without.
        """
        rows = None if self.kept is None else self.kept.gather(views)
        return self.collate(said, [self.pixels(one) for one in views], rows, ahead=ahead)

    def collate(
        self, said: Sequence[Said], shown: Sequence[Pixels], rows: Tensor | None, *, ahead: bool
    ) -> VqaBatch:
        """The same of pictures at hand; `rows`: their features, which the model gets instead."""
        if rows is None:
            made = self.sight.batch(said, shown)
        elif isinstance(self.sight, Patching):
            made = self.sight.unseen(said, [one.shape[:2] for one in shown])
        else:
            made = self.sight.batch(said, shown)
        if rows is not None:
            seen = {name: one for name, one in made.seen.items() if name != PIXELS}
            made = made.showing({**seen, FEATURES: rows})
        return self.layout.of_batch(made) if ahead and self.layout is not None else made

    def pixels(self, view: View) -> Pixels:
        """Of one picture, uint8 [h, w, 3]."""
        pixels = self.pictures.pixels(view.root, view.path, view.scale)
        if not view.blank:
            return pixels
        return np.broadcast_to(np.array(self.sight.blank, np.uint8), pixels.shape)

    def to_device(self, batch: VqaBatch) -> VqaBatch:
        """The batch where it is computed."""
        return to_device(batch, self.precision.device, self.sight.values)


@dataclass(frozen=True)
class Kept:
    """Features of all pictures of a run, memory-mapped."""

    arrays: list[npt.NDArray[Any]]
    places: dict[View, tuple[int, int, int]]
    """Array, first row and number of rows."""
    dtype: torch.dtype
    computed: int
    """Pictures that were not there before."""
    bytes: int
    """Of all that the run reads."""

    def gather(self, views: Sequence[View]) -> Tensor:
        """[rows of all pictures, width], copied."""
        parts = []
        for view in views:
            array, first, rows = self.places[view]
            parts.append(self.arrays[array][first : first + rows])
        return torch.from_numpy(np.concatenate(parts)).view(self.dtype)


class Tower:
    """The vision tower of a model of transformers, with whatever lies between it and the text."""

    def __init__(self, model: Any, vision: Vision) -> None:
        """`model`: the whole one, before anything is adapted."""
        self._model = model
        self.vision = vision
        self.form: Form | None = None
        """Known once the model has been tried; with it what comes out: `width`, `dtype`."""
        self.width, self.dtype = 0, torch.float32
        self._names = pretrained.vision_modules(model)
        self._rows: dict[tuple[int, int], int] = {}

    @property
    def modules(self) -> dict[str, nn.Module]:
        """By name; the output layer is none of them."""
        return {name: self._model.get_submodule(name) for name in self._names}

    @torch.no_grad()
    def look(self, pixels: Pixels) -> Any:
        """What the model's own `get_image_features` makes of one picture."""
        vision, function = self.vision, self._model.get_image_features
        given = vision.to_device(vision.collate([NOTHING], [pixels], None, ahead=True))
        taken = inspect.signature(function).parameters.keys()
        named = {
            name: one
            for name, one in {**given.seen, **given.host}.items()
            if name in taken or name.startswith("image_")
        }
        with vision.precision.autocast():
            return function(**named, return_dict=True)

    def encode(self, pixels: Pixels, form: Form | None = None) -> Tensor:
        """Features of one picture, [rows, width]. Always one at a time: they do not depend on what
        else was in the batch, to the last bit. `form`: while the model is tried.
        """
        form = form or self.form
        if form is None:
            raise RuntimeError("the model has not been tried")
        return form.rows(self.look(pixels))

    def rows(self, size: tuple[int, int]) -> int:
        """Rows of a picture of this height and width."""
        sight = self.vision.sight
        if isinstance(sight, Patching):
            return sight.tokens(*size)
        if size not in self._rows:
            blank = np.broadcast_to(np.array(sight.blank, np.uint8), (*size, 3))
            self._rows[size] = len(self.encode(blank))
        return self._rows[size]

    def fingerprint(self) -> str:
        """Of all that decides what comes out: weights, sizes, transform, number formats."""
        digest = hashlib.blake2b(digest_size=12)
        for name, module in self.modules.items():
            for path, tensor in module.state_dict().items():
                digest.update(f"{name}.{path}{tuple(tensor.shape)}{tensor.dtype}".encode())
                digest.update(tensor.contiguous().cpu().flatten().view(torch.uint8).numpy().data)
        sight = self.vision.sight
        eye = getattr(getattr(sight, "processor", None), "image_processor", None)
        cut = (sight.mean, sight.std, sight.frames) if isinstance(sight, Patching) else ()
        transform = eye.to_json_string() if eye is not None else cut
        sizes = self._model.config.vision_config.to_json_string()
        parts = (REVISION, self.form, self.dtype, transform, self.vision.precision.name, sizes)
        digest.update(repr(parts).encode())
        return digest.hexdigest()

    def drop(self) -> dict[str, nn.Module]:
        """Take the modules out of the model; returns them by name."""
        taken = self.modules
        for name in taken:
            self._put(name, Gone())
        return taken

    def restore(self, taken: Mapping[str, nn.Module]) -> None:
        """Put modules back that were dropped."""
        for name, module in taken.items():
            self._put(name, module)

    def _put(self, name: str, module: nn.Module) -> None:
        parent, _, last = name.rpartition(".")
        setattr(self._model.get_submodule(parent), last, module)


class Gone(nn.Module):
    """Stands where a module was whose work is done."""

    def forward(self, *_: Any, **__: Any) -> Any:
        """Raise RuntimeError: nothing may be computed here."""
        raise RuntimeError("the vision tower was given back when its features had been kept")

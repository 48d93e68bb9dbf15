"""The order in which captions are generated, and which of them were cut."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from engines.captioning.data.captions import Captions
from engines.captioning.data.dataset import Split
from engines.captioning.evaluation.evaluate import Evaluator, generation_order
from engines.captioning.params import Params
from engines.torchkit.data.prefetch import InputPipeline
from engines.torchkit.runtime.precision import Precision

CPU = torch.device("cpu")


class Scripted(nn.Module):
    """Writes n ids for the medium n, at most `longest`; records its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[int]] = []

    def generate(self, features, longest, _penalty):
        media = features.flatten().int().tolist()
        self.batches.append(media)
        return [[medium] * min(medium, longest) for medium in media]


def split(references: list[list[str]], rows: list[int]) -> Split:
    names = [str(row) for row in rows]
    captions = Captions(names, references, names, "en", Path(), False)
    return Split("some", captions, np.asarray(rows, np.int64))


def evaluator(model: Scripted) -> Evaluator:
    items = SimpleNamespace(gather=lambda rows: torch.from_numpy(rows).float()[:, None, None, None])
    template = SimpleNamespace(decode=lambda ids: " ".join(map(str, ids)))
    context = SimpleNamespace(
        params=Params(eval_batch_size=2, max_new_tokens=3, scorers=()), pipeline=InputPipeline(CPU),
        spec=SimpleNamespace(task="infer"), precision=Precision("fp32", CPU),
        report_progress=lambda *_: None,
    )  # fmt: skip
    ready = SimpleNamespace(
        model=model, items=items, template=template, encode_features=lambda media: media
    )
    return Evaluator(context, ready, SimpleNamespace(train=None))


def test_media_with_long_captions_are_captioned_together_and_first():
    model = Scripted()
    some = split([["a"], ["a long one"], ["of two", "x"], ["a longer one"], ["b"]], [4, 2, 3, 1, 5])
    captions = evaluator(model).generate_captions(some)
    assert model.batches == [[1, 2], [3, 4], [5]]
    assert captions.texts == ["4 4 4", "2 2", "3 3 3", "1", "5 5 5"], "in the order of the media"
    assert captions.cut == [True, False, True, False, True]


def test_media_without_captions_are_captioned_in_their_order():
    assert generation_order(split([[], [], []], [7, 8, 9])).tolist() == [0, 1, 2]

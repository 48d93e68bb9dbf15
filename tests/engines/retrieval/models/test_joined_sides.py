"""Both sides of a batch in one pass through the towers: losses and gradients of two passes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engines import model_catalog
from engines.retrieval import Params
from engines.retrieval.data.items import ArrayItems, TokenItems
from engines.retrieval.data.pairs import (
    NONE,
    ItemInputs,
    ItemRows,
    count_join_padding,
    gather_inputs,
    join_inputs,
)
from engines.retrieval.loss import contrastive
from engines.retrieval.models import factory, tokenizer
from engines.retrieval.models.encoder import DualEncoder
from engines.retrieval.models.frozen_towers import HeadEncoder
from tests.engines import families

RECURRENT = {"layer_fusion": "recurrent", "layers": (3, 7, 11), "fusion_width": 64,
             "fusion_queries": 4, "late_width": 24}  # fmt: skip
SETTINGS = {
    "pooled": {},
    "layers": {"layers": (3, 7, 11)},
    "late": {"scoring": "late"},
    "recurrent": RECURRENT,
    "recurrent, late": {**RECURRENT, "scoring": "late"},
    "GradCache": {"grad_cache_chunk": 3},
    "recurrent, GradCache": {**RECURRENT, "grad_cache_chunk": 3},
    "frozen towers": {**RECURRENT, "freeze_towers": True},
}
CASES = [("clip", name) for name in SETTINGS] + [
    (family, name)
    for family in ("siglip", "naflex", "plain-vit", "timm-vit")
    for name in ("pooled", "late")
]
QUERIES = ItemRows(np.array([2, 0, NONE, 0]), np.array([0, NONE, 1, 2]))
PASSAGES = ItemRows(np.array([1, NONE, 1, 2]), np.array([3, 0, NONE, 1]))
"""Items that lack their text or image, on both sides; texts of both have several lengths."""


def model_and_sides(folder, family, **settings) -> tuple[DualEncoder, list[ItemInputs]]:
    families.FOLDERS[family](folder)
    entry = model_catalog.load(f"path:{folder}")
    params = Params(**{**entry.settings, **settings})
    words = tokenizer.load_model_tokenizer(folder, entry.family)
    torch.manual_seed(0)
    model = factory.from_folder(entry, folder, words, params)
    factory.configure_model(model, entry, params, words)
    texts = TokenItems.tokenize(families.TEXTS, words.tokenizer, params.max_length, words.pad)
    texts.length = words.length
    size = (4, params.image_size, params.image_size, 3)
    images = ArrayItems([np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)])
    # Without dropout: masks of one pass are not those of two.
    return model.eval(), [gather_inputs(side, texts, images) for side in (QUERIES, PASSAGES)]


def loss_and_gradients(model, sides, *, one_pass: bool):
    model.one_pass = one_pass
    assert model.joins(*sides) is one_pass
    queries, passages, scale = model(*sides)
    loss, _ = contrastive(queries, passages, torch.eye(4, dtype=torch.bool), scale)
    model.zero_grad()
    loss.backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return queries, passages, loss, gradients


@pytest.mark.parametrize(("family", "name"), CASES)
def test_one_pass_is_two(tmp_path, family, name):
    model, sides = model_and_sides(tmp_path, family, **SETTINGS[name])
    apart = loss_and_gradients(model, sides, one_pass=False)
    at_once = loss_and_gradients(model, sides, one_pass=True)
    for first, second in zip(apart[:3], at_once[:3], strict=True):
        torch.testing.assert_close(second, first, atol=2e-6, rtol=1e-5)
    assert at_once[3].keys() == apart[3].keys()
    for parameter, gradient in apart[3].items():
        torch.testing.assert_close(at_once[3][parameter], gradient, atol=2e-5, rtol=1e-4,
                                   msg=lambda m, p=parameter: f"{p}: {m}")  # fmt: skip


def test_the_sides_of_the_test_need_padding(tmp_path):
    _, sides = model_and_sides(tmp_path, "clip")
    assert count_join_padding(*sides) > 0
    assert join_inputs(*sides).size == 8


def test_each_tower_is_called_once(tmp_path, monkeypatch):
    model, sides = model_and_sides(tmp_path, "clip")
    calls: list[int] = []
    for tower in (model.text_tower, model.vision_tower):
        plain = tower.forward
        monkeypatch.setattr(
            tower, "forward", lambda rows, plain=plain: (calls.append(len(rows)), plain(rows))[1]
        )
    model.one_pass = True
    model(*sides)
    assert calls == [6, 6]


def test_sides_with_heads_of_their_own_or_batch_statistics_keep_two_passes(tmp_path):
    model, sides = model_and_sides(tmp_path, "fastvit")
    heads = HeadEncoder({"hidden": 8, "projection": 8}, 0.07)
    model.one_pass = heads.one_pass = True
    assert not model.joins(*sides)
    assert not heads.joins(*sides)


def test_a_tower_that_sees_padding_is_joined_only_without_any(tmp_path):
    model, sides = model_and_sides(tmp_path, "siglip")
    model.one_pass = True
    assert model.joins(*sides), "texts have one length"
    queries, passages = sides
    short = ItemInputs(4, queries.texts[:, :5], queries.text_at, queries.images, queries.image_at)
    assert not model.joins(short, passages)

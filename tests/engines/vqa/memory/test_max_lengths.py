"""The longest sample that a forecast takes, against what a run counts of the same questions."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from datasets_mm.building import build
from engines import model_catalog
from engines.memory_query import MemoryQuery
from engines.vqa import Params, prepare
from engines.vqa.memory import max_lengths
from engines.vqa.memory.tile_towers import InternVlTower
from engines.vqa.models import chat_template
from engines.vqa.models.chat_template import ChoicePrompt
from tests.engines import tiny_vqa


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of the data, its subset, and the folder of that."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny_vqa.write(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_CONFIG", str(folder / "config"))
        yield folder, build.build("asks", folder / "cache", folder / "data")


def want(subset, model="tiny-vlm", **settings):
    params = Params(**(tiny_vqa.SETTINGS | settings)).model_dump(mode="json")
    return MemoryQuery(
        capability=(8, 6), engine="vqa", model=model, params=params, subsets=(str(subset.folder),)
    )


def counted(folder, subset, prompt):
    """What `prepare.check_lengths` counts, without the picture."""
    words = chat_template.read_chat_template(
        prepare.load_hf_processor(folder / "model"), prompt, folder
    )
    rows = subset.records.select(["question", "options"]).to_pylist()
    return (
        max(words.count_tokens([ChoicePrompt(r["question"], r["options"], "a") for r in rows])) - 1
    )


def test_a_tokenizer_at_hand_counts_exactly(made):
    folder, subset = made
    found = max_lengths.find_max_lengths(want(subset), 28)
    assert found.tokens == counted(folder, subset, Params().prompt)
    assert "counted" in found.facts["longest text"]


def test_without_one_the_estimate_is_no_less(made):
    folder, subset = made
    model_catalog.load("tiny-scratch")
    found = max_lengths.find_max_lengths(want(subset, "tiny-scratch"), 28)
    exact = counted(folder, subset, Params().prompt)
    assert exact <= found.tokens <= 3 * exact
    assert "estimated" in found.facts["longest text"]


def test_pictures_count_by_their_own_proportions(made, tmp_path):
    _, subset = made
    square = max_lengths.find_max_lengths(want(subset, long_side=112), 28)
    assert square.train == square.predict == (112, 112)
    larger = max_lengths.find_max_lengths(want(subset, long_side=112, tta_scales=(0.75, 1.5)), 28)
    assert (larger.train, larger.predict) == ((112, 112), (168, 168))
    wide = max_lengths.find_largest_picture(
        want(subset, long_side=112).params, [(50, 100), (25, 100)], 28
    )
    assert wide == (56, 112)
    free = want(subset, long_side=0, max_pixels=112 * 112).params
    assert np.prod(max_lengths.find_largest_picture(free, [(4000, 1000)], 28)) <= 112 * 112
    assert max_lengths.find_largest_picture(free, [], 28) == (112, 112)


def test_the_largest_picture_is_the_one_with_most_tokens():
    """InternVL makes five tiles of a narrow picture, beside the whole, and one of a square."""
    tower = InternVlTower({"vision_config": {"image_size": 448}, "image_seq_length": 256})
    params, sizes = Params().model_dump(), [(125, 500), (500, 500)]
    args = (params, sizes, tower.factor, (1.0,))
    square, narrow = (
        max_lengths.find_largest_picture(*args, count) for count in (np.prod, tower.tokens)
    )
    assert (square, narrow) == ((392, 392), (84, 392))
    assert (tower.tokens(square), tower.tokens(narrow)) == (256 + 2, 6 * 256 + 2)


def test_what_cannot_be_read_is_assumed_and_said(made, tmp_path):
    _, subset = made
    asked = want(subset).model_copy(update={"subsets": (str(tmp_path / "gone"),)})
    found = max_lengths.find_max_lengths(asked, 28)
    assert (found.tokens, found.train) == (max_lengths.TEXT_TOKENS, (56, 56))
    assert "assumed" in found.facts["longest text"]
    assert "largest picture" not in found.facts


def test_many_pictures_are_a_sample_and_say_so(made, monkeypatch):
    _, subset = made
    monkeypatch.setattr(max_lengths, "PICTURES", 10)
    assert (
        max_lengths.find_max_lengths(want(subset), 28).facts["largest picture"]
        == "of 9 of 18 that were looked at"
    )


def test_a_damaged_picture_is_left_to_the_run(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    Image.new("RGB", (30, 20)).save(tmp_path / "good.png")
    assert max_lengths._read_size(tmp_path, "bad.png") is None
    assert max_lengths._read_size(tmp_path, "good.png") == (20, 30)
    assert max_lengths._read_size(tmp_path, "../outside.png") is None


def test_a_model_of_another_kind_is_one_sentence(tmp_path):
    from engines import memory_estimator

    (tmp_path / "config.json").write_text('{"model_type": "llava", "vision_config": {}}')
    asked = MemoryQuery(
        capability=(8, 6),
        engine="vqa",
        model=f"path:{tmp_path}",
        params=Params().model_dump(mode="json"),
    )
    need = memory_estimator.answer_query(asked)
    assert need.phases == {}
    assert "memory of a 'llava' cannot be forecast" in need.problem
    assert "qwen2_5_vl" in need.problem

"""Facts of a built subset: planted blank and equal pictures, lengths of captions."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

from datasets_mm.profile.measure_facts import count_tokens, measure_facts
from datasets_mm.storage import arrow_store


def subset(folder: Path, captions: list[str], *, blank: int, question: str = "") -> Path:
    """A built caption subset whose first `blank` pictures are grey."""
    images = folder / "images"
    images.mkdir(parents=True)
    (folder / "image_root").write_bytes(os.fsencode(images))
    noise = np.random.default_rng(0)
    writer = arrow_store.record_writer(folder)
    for row, caption in enumerate(captions):
        pixels = noise.integers(0, 256, (32, 32, 3), np.uint8)
        picture = Image.fromarray(pixels) if row >= blank else Image.new("RGB", (32, 32), "grey")
        picture.save(images / f"{row}.png")
        empty = dict.fromkeys(name for name in arrow_store.RECORD_SCHEMA.names)
        lists = dict.fromkeys(("passage_id", "passage_image_path", "passage_text"), ())
        writer.add({
            **empty, **lists, "data_id": str(row), "dataset_id": "ko", "question": question,
            "image_path": f"{row}.png", "answer": [caption], "instruction": "",
        })  # fmt: skip
    writer.close()
    return folder


def test_stand_in_pictures_are_counted(tmp_path: Path) -> None:
    facts = measure_facts(subset(tmp_path / "planted", ["사진"] * 40, blank=8))
    assert (facts.media, facts.equal, facts.blank, facts.languages) == (40, 8, 8, ("ko",))
    assert facts.blank_example == "0.png"
    clean = measure_facts(subset(tmp_path / "clean", ["사진"] * 40, blank=0))
    assert (clean.media, clean.equal, clean.blank) == (40, 1, 0)


def test_captions_are_counted_and_answers_to_questions_are_not(tmp_path: Path) -> None:
    texts = ["가" * 575] * 9 + ["짧은 캡션"]
    facts = measure_facts(subset(tmp_path / "captions", texts, blank=0))
    assert facts.captions.n == 10
    assert facts.captions.median == -(-575 * 3 // 6)  # bytes of UTF-8, at most 6 in a token
    assert facts.captions.share_over(128) == 0.9
    assert not measure_facts(subset(tmp_path / "vqa", texts, blank=0, question="무엇?")).captions.n
    assert count_tokens([], None).median == 0

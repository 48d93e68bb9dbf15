"""The copy in AI-Hub's form: from the command to records and decoded clips."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets_mm.building.build import BuildError, Subset, build
from datasets_mm.child_messages import ignore_progress
from datasets_mm.demo import aihub_copy
from datasets_mm.media import video_frames

pytest.importorskip("av")


Recipes = Callable[[str, str], Path]


def drawings(tmp_path: Path, own_recipes: Recipes, language: str) -> Subset:
    """A subset of 12 pictures with a name in this language, as `emoji_captions_*` have."""
    folder = tmp_path / "drawings"
    (folder / "images").mkdir(parents=True, exist_ok=True)
    names = {f"{number}.png": f"{language} {number}" for number in range(12)}
    for number, name in enumerate(names):
        Image.new("RGB", (72, 72), (20 * number, 0, 0)).save(folder / "images" / name)
    (folder / f"{language}.json").write_text(json.dumps(names))
    own_recipes(
        f"drawings_{language}",
        f'schema = 1\nname = "drawings_{language}"\ntitle = "t"\n[source]\nadapter = "captions"\n'
        f'uri = "{language}.json"\ndataset = "{language}"\n',
    )
    return build(f"drawings_{language}", tmp_path / "cache", folder)


def test_a_copy_is_read_by_the_studys_recipes(tmp_path: Path, own_recipes: Recipes) -> None:
    korean = [drawings(tmp_path, own_recipes, "ko")] * 2
    english = [drawings(tmp_path, own_recipes, "en")]
    out = tmp_path / "copy"
    aihub_copy.write_copy(out, 12, korean, english, ignore_progress)
    for part, rows in (("train", 12), ("val", 2)):
        subset = build(f"siglip_study_{part}", tmp_path / "cache", out)
        assert len(subset) == rows
        assert not subset.manifest["source_skipped"]
    label = json.loads((out / "train/labels/clip_train_00001.json").read_text("utf-8"))
    assert label["annotation"]["description_kr"].startswith("흰 배경에서 ko ")
    assert " en " in label["annotation"]["description_en"]
    with (out / "train/videos/clip_train_00001.mp4").open("rb") as file:
        clip = video_frames.read_clip(file, 8, 64, "bicubic")
    assert clip.substitutes == ""
    first, last = clip.pixels[0].astype(int), clip.pixels[-1].astype(int)
    assert np.abs(first - last).mean() > 2, "the drawing moves"
    with pytest.raises(BuildError, match="ask for fewer --rows"):
        aihub_copy.write_copy(tmp_path / "more", 10_000, korean, english, ignore_progress)
    assert not (tmp_path / "more").exists()

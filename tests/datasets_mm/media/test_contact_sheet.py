"""Contact sheets: which frame stands where, and how a video's frames come into a report."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av", reason="PyAV (extra `captioning`) is not installed")

from PIL import Image

from datasets_mm.media.contact_sheet import SIDE, make_sheet, tile_frames
from results.records.suite_view import CaptionExample, SuiteView
from results.report import captions
from tests.fixtures.videos import grey, write_sound, write_video
from workbench.reporting import caption_examples


def test_frames_stand_in_reading_order_and_empty_places_are_white() -> None:
    shown = np.arange(6, dtype=np.uint8)[:, None, None, None] + np.zeros((6, 2, 2, 3), np.uint8)
    whole = tile_frames(shown)
    assert whole.shape == (4, 8, 3)
    assert whole[::2, ::2, 0].tolist() == [[0, 1, 2, 3], [4, 5, 255, 255]]


def test_a_sheet_shows_what_the_model_is_given(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 24)
    made = make_sheet(tmp_path / "a.mp4", 8, tmp_path / "cache")
    pixels = np.asarray(Image.open(made), np.float64)
    assert pixels.shape == (2 * SIDE, 4 * SIDE, 3)
    found = pixels.reshape(2, SIDE, 4, SIDE, 3).mean((1, 3, 4)).ravel()
    wanted = [grey(number) for number in (0, 3, 7, 10, 13, 16, 20, 23)]
    assert np.abs(found - wanted).max() < 4
    written = made.stat().st_mtime_ns
    assert make_sheet(tmp_path / "a.mp4", 8, tmp_path / "cache") == made
    assert made.stat().st_mtime_ns == written, "made once"


def test_videos_of_a_report_have_a_picture_others_stay_names(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 10)
    write_sound(tmp_path / "b.m4a").rename(tmp_path / "b.mp4")
    Image.new("RGB", (4, 4)).save(tmp_path / "c.png")
    shown = [
        CaptionExample(
            split="s", standing="best", id=name, medium=name, caption=name, metric="METEOR",
            score=0.5, picture=str(tmp_path / name),
        )
        for name in ("a.mp4", "b.mp4", "c.png")
    ]  # fmt: skip
    first, second, third = caption_examples.add_contact_sheets(shown, 4, tmp_path / "cache")
    assert first.frames == 4
    assert first.picture != shown[0].picture
    assert (second, third) == (shown[1], shown[2])
    view = SuiteView(name="s", captions={"01": (first, second, third)})
    links = captions.copy_pictures(view, tmp_path / "pictures")
    assert set(links) == {first.picture, third.picture}
    assert 'width="384"' in captions._picture_cell(first, links).text
    assert captions._picture_cell(second, links).text == "b.mp4"
    assert 'width="96"' in captions._picture_cell(third, links).text


def test_what_else_a_child_prints_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A codec may write to stdout whatever it likes."""
    out = b'[h264]\n[1]\n\xff\n{"kind": "sheet"}\n{"kind": "sheet", "path": "v", "file": "f"}'
    done = subprocess.CompletedProcess([], 0, out, b"")
    monkeypatch.setattr(
        "workbench.reporting.caption_examples.subprocess.run", lambda *_, **__: done
    )
    assert caption_examples._make_sheets(["v"], 4, Path("c")) == {"v": "f"}

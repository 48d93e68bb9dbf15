"""Videos: which frames are taken, and what becomes of files that are none."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av", reason="PyAV (extra `captioning`) is not installed")

from datasets_mm.media.clip_cache import ClipCache
from datasets_mm.media.video_frames import Clip, evenly_spaced
from tests.fixtures.videos import grey, write_empty, write_sound, write_video

SIDE = 32


def _open(root: Path, paths: list[str], cache: Path, frames: int = 8) -> ClipCache:
    return ClipCache.open(paths, root, SIDE, frames, cache)


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.avi", "mpeg4"), ("a.webm", "libvpx-vp9"), ("a.mkv", "mpeg4")],
)
def test_frames_are_evenly_spaced_first_and_last_among_them(
    tmp_path: Path, name: str, codec: str
) -> None:
    write_video(tmp_path / name, 24, codec)
    clips = _open(tmp_path, [name], tmp_path / "cache")
    assert clips.skipped == {}
    shown = clips.array[clips.row(name)]
    assert shown.shape == (8, SIDE, SIDE, 3)
    # By hand: round(i * 23 / 7) for i in 0..7.
    wanted = [grey(number) for number in (0, 3, 7, 10, 13, 16, 20, 23)]
    assert np.abs(shown.mean((1, 2, 3)) - wanted).max() < 4


def test_a_keyframe_far_away_does_not_change_which_frames_are_read(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 30, gop=300)
    shown = _open(tmp_path, ["a.mp4"], tmp_path / "cache", 4).array[0]
    assert np.abs(shown.mean((1, 2, 3)) - [grey(n) for n in (0, 10, 19, 29)]).max() < 4


def test_a_video_of_fewer_frames_repeats_them(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 2)
    shown = _open(tmp_path, ["a.mp4"], tmp_path / "cache", 4).array[0]
    assert np.abs(shown.mean((1, 2, 3)) - [grey(0), grey(0), grey(1), grey(1)]).max() < 4
    assert evenly_spaced(1, 3) == [0, 0, 0]


def test_what_is_no_video_is_skipped_and_named(tmp_path: Path) -> None:
    media = tmp_path / "media"
    media.mkdir()
    write_video(media / "good.mp4", 10)
    write_sound(media / "sound.m4a").rename(media / "sound.mp4")
    write_empty(media / "zero.avi")
    (media / "noise.mp4").write_bytes(b"\0\1\2 no video at all " * 50)
    (media / "cut.mp4").write_bytes((media / "good.mp4").read_bytes()[:200])
    (tmp_path / "secret.mp4").write_bytes((media / "good.mp4").read_bytes())
    (media / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    (media / "list.mp4").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{tmp_path}/secret.mp4\n"
    )
    (media / "folder.mp4").mkdir()
    names = sorted(path.name for path in media.iterdir())
    clips = _open(media, [*names, "gone.mp4"], tmp_path / "cache")
    assert clips.row("good.mp4") == 0
    assert len(clips.array) == 1
    said = clips.skipped
    assert said["sound.mp4"] == "audio without a picture"
    assert said["zero.avi"] in {"zero frames", "no video stream"}
    assert said["link.mp4"] == "outside the image root"
    assert said["folder.mp4"] == "not a regular file"
    assert said["gone.mp4"] == "missing"
    for name in ("noise.mp4", "cut.mp4", "list.mp4"):
        assert said[name].startswith("unreadable video"), (name, said[name])


def test_clips_are_kept_by_content_and_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(tmp_path / "a.mp4", 12)
    (tmp_path / "b.mp4").write_bytes((tmp_path / "a.mp4").read_bytes())
    first = _open(tmp_path, ["a.mp4", "b.mp4"], tmp_path / "cache", 4)
    assert first.row("a.mp4") == first.row("b.mp4") == 0
    assert len(_open(tmp_path, ["a.mp4"], tmp_path / "cache", 2).array[0]) == 2
    copied = pickle.loads(pickle.dumps(first))
    assert copied.array.shape == first.array.shape
    monkeypatch.setattr(
        "datasets_mm.media.video_frames.read_frames", lambda *_: pytest.fail("decoded again")
    )
    again = _open(tmp_path, ["a.mp4", "b.mp4"], tmp_path / "cache", 4)
    assert np.array_equal(again.array, first.array)
    write_video(tmp_path / "b.mp4", 20)
    monkeypatch.undo()
    changed = _open(tmp_path, ["a.mp4", "b.mp4"], tmp_path / "cache", 4)
    assert changed.row("b.mp4") == 1
    assert changed.array[1].mean((1, 2, 3))[-1] == pytest.approx(grey(19), abs=4)


def test_an_interrupted_build_keeps_what_stands_in_for_lost_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clips of its rows are never read again."""
    names = ["a.mp4", "b.mp4"]
    for name in names:
        (tmp_path / name).write_text(name)
    clip = Clip(np.zeros((2, SIDE, SIDE, 3), np.uint8), "1 of 2 frames")
    monkeypatch.setattr("datasets_mm.media.video_frames.read_clip", lambda *_: clip)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ClipCache.open(names, tmp_path, SIDE, 2, tmp_path / "cache", interrupt)
    again = _open(tmp_path, names, tmp_path / "cache", 2)
    assert again.substituted == dict.fromkeys(names, "1 of 2 frames")

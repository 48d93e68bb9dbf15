"""The frames of a video are those that were wanted, whatever a seek in its container returns."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("av", reason="PyAV (extra `captioning`) is not installed")

from datasets_mm import media_types
from datasets_mm.media import video_frames
from datasets_mm.media.clip_cache import ClipCache
from datasets_mm.media.decode import UnusableError, decode
from tests.fixtures.videos import write_sound

CONTAINERS = {
    "ts": ("mpegts", "libx264"), "m2ts": ("mpegts", "libx264"), "mts": ("mpegts", "mpeg2video"),
    "flv": ("flv", "libx264"), "3gp": ("3gp", "libx264"), "asf": ("asf", "mpeg4"),
    "wmv": ("asf", "wmv2"), "webm": ("webm", "libvpx-vp9"), "mkv": ("matroska", "libx264"),
    "avi": ("avi", "mpeg4"), "mov": ("mov", "mpeg4"), "mp4": ("mp4", "libx264"),
    "mpg": ("mpeg", "mpeg1video"), "vob": ("vob", "mpeg2video"),
}  # fmt: skip
WITH_B_FRAMES = {"avi", "mts", "mpg", "asf"}


def _brightness(number: int, total: int) -> int:
    return 20 + number * 200 // total


def _write(path: Path, total: int, gop: int, *, times: list[int] | None = None) -> Path:
    """A video of plain greys; `times`: presentation times in milliseconds."""
    import av

    container, codec = CONTAINERS[path.suffix[1:]]
    options = {"g": str(gop)} | ({"bf": "2"} if path.suffix[1:] in WITH_B_FRAMES else {})
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        if times:
            from fractions import Fraction

            stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(total):
            pixels = np.full((64, 96, 3), _brightness(number, total), np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            if times:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def _read(path: Path, count: int = 8) -> video_frames.Clip:
    with path.open("rb") as file:
        return video_frames.read_clip(file, count, 32, "bicubic")


def _off(clip: video_frames.Clip, total: int) -> float:
    """Largest difference to the greys that were drawn."""
    numbers = video_frames.evenly_spaced(total, len(clip.pixels))
    drawn = [_brightness(number, total) for number in numbers]
    return float(np.abs(clip.pixels.mean((1, 2, 3)) - drawn).max())


@pytest.mark.parametrize("ending", CONTAINERS)
@pytest.mark.parametrize(("total", "gop"), [(100, 250), (300, 50)])
def test_every_container_gives_the_frames_that_were_wanted(
    tmp_path: Path, ending: str, total: int, gop: int
) -> None:
    clip = _read(_write(tmp_path / f"a.{ending}", total, gop))
    assert _off(clip, total) < 5
    assert clip.substitutes == ""


def test_variable_frame_rates_and_one_frame(tmp_path: Path) -> None:
    times = [0, 40, 80, 1000, 1040, 5000, 5040, 5080, 5120, 9000, 9040, 60000]
    assert _off(_read(_write(tmp_path / "v.mkv", 12, 12, times=times), 4), 12) < 5
    one = _read(_write(tmp_path / "one.mp4", 1, 12), 4)
    assert len(one.pixels) == 4
    assert _off(one, 1) < 5


def test_a_phones_rotation_is_applied(tmp_path: Path) -> None:
    """A display matrix of a quarter turn, as phones write it into the track header."""
    import av

    path = tmp_path / "turned.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=12)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        halves = np.zeros((64, 64, 3), np.uint8)
        halves[:32] = 255  # the upper half is white
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(halves, "rgb24")))
        container.mux(stream.encode(None))
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 40  # version 0: the matrix, 16.16 and 2.30 numbers
    quarter = (0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    content[place : place + 36] = struct.pack(">9i", *quarter)
    path.write_bytes(content)
    clip = _read(path, 1)
    left, right = clip.pixels[0][:, :8].mean(), clip.pixels[0][:, -8:].mean()
    assert (left < 50, right > 200) == (True, True), (
        "turned clockwise: the upper half is at the right"
    )


def _damage_packets(path: Path, first: int, last: int) -> None:
    """Overwrite the content of these packets, in the order of the file."""
    import av

    with av.open(str(path)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    content = bytearray(path.read_bytes())
    for place, size in places[first:last]:
        content[place : place + size] = b"\xff" * size
    path.write_bytes(content)


def test_substitutes_are_counted_and_named(tmp_path: Path) -> None:
    """A damaged end: its nearest stands in, is named by the cache, and again by a later one."""
    path = _write(tmp_path / "a.mp4", 24, 1)
    _damage_packets(path, 21, 24)
    clip = _read(path)
    assert clip.substitutes.startswith("1 of 8 frames could not be decoded"), clip.substitutes
    assert clip.substitutes.endswith("(first: frame 24 of 24)")
    for _ in range(2):
        cache = ClipCache.open(["a.mp4"], tmp_path, 32, 8, tmp_path / "cache")
        assert cache.substituted == {"a.mp4": clip.substitutes}
        assert cache.skipped == {}
        assert cache.row("a.mp4") == 0
    (tmp_path / "same.mp4").write_bytes(path.read_bytes())
    again = ClipCache.open(["same.mp4"], tmp_path, 32, 8, tmp_path / "cache")
    assert again.substituted == {"same.mp4": clip.substitutes}


def test_a_damaged_middle_costs_its_own_frames(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.mp4", 24, 1)
    _damage_packets(path, 9, 12)  # frame 10 of 0, 3, 7, 10, 13, 16, 20, 23
    clip = _read(path)
    drawn = [_brightness(number, 24) for number in (0, 3, 7, 13, 16, 20, 23)]
    others = np.delete(clip.pixels.mean((1, 2, 3)), 3)
    assert np.abs(others - drawn).max() < 5
    assert "(first: frame 11 of 24)" in clip.substitutes


def test_files_that_were_joined_go_by_number(tmp_path: Path) -> None:
    """Timestamps of joined MPEG-TS files jump back, so that each comes twice."""
    path = _write(tmp_path / "a.ts", 100, 250)
    path.write_bytes(path.read_bytes() * 2)
    clip = _read(path)
    drawn = [_brightness(number % 100, 100) for number in video_frames.evenly_spaced(200, 8)]
    assert np.abs(clip.pixels.mean((1, 2, 3)) - drawn).max() < 5
    assert clip.substitutes == ""


def test_packets_without_a_frame_are_none(tmp_path: Path) -> None:
    """In an AVI with B-frames half of the packets is damaged: the frames that are there count."""
    path = _write(tmp_path / "a.avi", 40, 12)
    _damage_packets(path, 24, 40)
    clip = _read(path, 4)
    means = clip.pixels.mean((1, 2, 3))
    assert np.diff(means).min() > 20  # no frame stands in for others four times
    assert means[-1] < _brightness(30, 40)


def test_timestamps_may_begin_anywhere(tmp_path: Path) -> None:
    for ending in ("mp4", "ts", "mkv"):
        times = [5_000_000 + 40 * number for number in range(40)]
        clip = _read(_write(tmp_path / f"a.{ending}", 40, 12, times=times))
        assert _off(clip, 40) < 5
        assert clip.substitutes == ""


def test_decoding_from_the_start_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write(tmp_path / "a.avi", 60, 12)  # with B-frames: always from the start
    monkeypatch.setattr(video_frames, "MAX_DECODED", 20)
    clip = _read(path)
    assert clip.substitutes.startswith("5 of 8 frames could not be decoded")
    assert np.abs(clip.pixels[3:].mean((1, 2, 3)) - _brightness(19, 60)).max() < 5


def test_a_seek_that_fails_is_no_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any seek the frames come from the start; a file without an index is like this."""
    path = _write(tmp_path / "a.mp4", 60, 12)
    monkeypatch.setattr(video_frames, "_seek", lambda *_, **__: None)
    clip = _read(path)
    assert _off(clip, 60) < 5
    assert clip.substitutes == ""


VIDEO_NAMES = (
    "a.mp4", "b.MOV", "c.flv", "d.3gp", "e.asf", "f.mts", "G.M2TS", "h.mkv", "dir.png/i.ts ",
    "w\\j.Webm", "k.ogv", "l.vob",
)  # fmt: skip


@pytest.mark.parametrize("name", VIDEO_NAMES)
def test_one_list_tells_videos_from_pictures(name: str) -> None:
    assert media_types.is_video(name)
    assert media_types.is_medium(name)


def test_what_is_no_video_by_its_ending() -> None:
    for name in ("a.jpg", "a.mp4.png", ".mp4", "mp4", "", "a.", "v.mp4/picture.webp"):
        assert not media_types.is_video(name), name
    assert not media_types.PICTURE_ENDINGS & media_types.VIDEO_ENDINGS
    assert {f".{ending}" for ending in CONTAINERS} <= media_types.VIDEO_ENDINGS


def test_a_check_opens_videos_as_videos(tmp_path: Path) -> None:
    """`data check` called good videos damaged pictures: its list of media was another one."""
    from datasets_mm.profile.image_checks import PictureCount

    _write(tmp_path / "good.mts", 10, 5)
    (tmp_path / "bad.flv").write_bytes(b"noise" * 99)
    count = PictureCount(tmp_path.resolve(), 0)
    count.check_paths(["good.mts", "bad.flv"])

    def say(*_: Any) -> None:
        return

    profile = count.profile(say)
    assert profile.opened == 2
    assert list(profile.examples.values()) == [("bad.flv",)]


# -- what came back is not what was wanted ------------------------------------------------------


@pytest.mark.parametrize("ending", ["mp4", "mkv", "webm", "avi", "flv"])
def test_a_file_that_is_cut_off_is_told(tmp_path: Path, ending: str) -> None:
    """Half a download: the frames lie in what is there, and the end that is not is named."""
    path = _write(tmp_path / f"a.{ending}", 100, 12)
    if ending == "mp4":  # its table of contents comes first, as on the web
        import av

        source, path = path, tmp_path / "b.mp4"
        options = {"movflags": "faststart"}
        with av.open(str(source)) as read, av.open(str(path), "w", options=options) as output:
            stream = output.add_stream_from_template(read.streams.video[0])
            for packet in read.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    output.mux(packet)
    assert _read(path).substitutes == ""
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 7 // 10])
    clip = _read(path)
    assert "seconds: copy or download it again" in clip.substitutes
    assert clip.substitutes.count("the file ends after") == 1


def _with_cover(path: Path) -> Path:
    """Write a white cover picture into an MP4, as music players do: in front of its tracks."""

    def atom(kind: bytes, content: bytes) -> bytes:
        return (8 + len(content)).to_bytes(4, "big") + kind + content

    picture = io.BytesIO()
    Image.new("RGB", (64, 64), "white").save(picture, "JPEG")
    cover = atom(b"covr", atom(b"data", bytes([0, 0, 0, 13, 0, 0, 0, 0]) + picture.getvalue()))
    handler = atom(b"hdlr", bytes(8) + b"mdirappl" + bytes(9))
    added = atom(b"udta", atom(b"meta", bytes(4) + handler + atom(b"ilst", cover)))
    content = path.read_bytes()
    start = content.find(b"moov") - 4
    size = int.from_bytes(content[start : start + 4], "big") + len(added)
    first = start + 8 + int.from_bytes(content[start + 8 : start + 12], "big")
    moov = size.to_bytes(4, "big") + content[start + 4 : first] + added
    path.write_bytes(content[:start] + moov + content[first:])
    return path


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    clip = _read(_with_cover(_write(tmp_path / "a.mp4", 40, 12)))
    assert _off(clip, 40) < 5
    assert clip.substitutes == ""
    with pytest.raises(UnusableError, match="audio without a picture"):
        _read(_with_cover(write_sound(tmp_path / "song.mp4")))


def test_pixels_that_are_no_squares_and_transparency(tmp_path: Path) -> None:
    """A ring is as wide as it is high where its pixels are wide; what is not there is white."""
    import av

    path = tmp_path / "wide.mov"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 128, "rgba"
        stream.codec_context.sample_aspect_ratio = 2
        pixels = np.zeros((128, 64, 4), np.uint8)
        pixels[32:96, 16:48] = (0, 0, 0, 255)  # a black square of 64 by 64 on nothing
        output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgba")))
        output.mux(stream.encode(None))
    shown = _read(path, 1).pixels[0]
    assert shown[0, 0].tolist() == [255, 255, 255]
    dark = np.argwhere(shown[:, :, 0] < 128)
    assert np.ptp(dark, axis=0).tolist() == [15, 15]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer"),
        (b"\n<!DOCTYPE html><title>404</title>", "is a web page"),
        (b"", "is an empty file"),
        (bytes(4096), "holds zero bytes only"),
    ],
)
def test_what_lies_in_the_place_of_a_medium_is_named(content: bytes, reason: str) -> None:
    with pytest.raises(UnusableError, match=reason):
        video_frames.read_clip(io.BytesIO(content), 4, 8, "bilinear")
    with pytest.raises(UnusableError, match=reason):
        decode(content, 8, "bilinear")

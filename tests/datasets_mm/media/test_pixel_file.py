"""Filling an image cache: room, crashes, full disks, waits; and large JPEGs decoded smaller."""

from __future__ import annotations

import errno
import io
import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from datasets_mm.media import decode, image_cache, pixel_file
from datasets_mm.media.image_cache import ImageCache
from datasets_mm.media.pixel_file import HASH_BYTES, DiskFullError, RowWriter

SIDE = 16
ROW = SIDE * SIDE * 3


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


def save(root: Path, count: int, start: int = 0) -> list[str]:
    names = [f"{number}.png" for number in range(start, start + count)]
    for number, name in enumerate(names, start):
        Image.new("RGB", (8, 8), (number % 256, number // 256, 7)).save(root / name)
    return names


def open_cache(names: list[str], root: Path, **more: Any) -> ImageCache:
    return ImageCache.open(names, root, SIDE, root.parent / "cache", **more)


def shows(cache: ImageCache, names: list[str]) -> bool:
    colours = [(int(name.removesuffix(".png")) % 256) for name in names]
    return all(
        (cache.array[cache.row(n)][..., 0] == c).all() for n, c in zip(names, colours, strict=True)
    )


def of_disk(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    usage = SimpleNamespace(total=0, used=0, free=free)
    monkeypatch.setattr(pixel_file.shutil, "disk_usage", lambda _: usage)


def test_too_little_room_is_said_before_anything_is_written(root, monkeypatch):
    names = save(root, 40)
    of_disk(monkeypatch, 40 * ROW - 1)
    with pytest.raises(
        DiskFullError, match=r"40 pictures need about 0\.00 GiB and .* WORKBENCH_CAC"
    ):
        open_cache(names, root)
    assert not list((root.parent / "cache").rglob("rows.u8"))
    of_disk(monkeypatch, 40 * ROW)
    assert shows(open_cache(names, root), names)


def test_pictures_that_have_rows_already_need_no_room(root, monkeypatch):
    names = save(root, 30)
    open_cache(names, root)
    copied = root.parent / "moved"
    root.rename(copied)
    of_disk(monkeypatch, 0)
    assert shows(open_cache(names, copied), names)


def test_a_disk_that_fills_up_on_the_way_keeps_what_was_whole(root, monkeypatch):
    names, written = save(root, 20), []
    monkeypatch.setattr(image_cache, "WINDOW", 5)
    plain = RowWriter._write

    def write(self, file, data):
        if len(data) == ROW:
            written.append(data)
            if len(written) > 12:
                file.write(data[: ROW // 2])
                with pytest.raises(DiskFullError):  # the sentence is this method's own
                    plain(self, Full(), data)
                plain(self, Full(), data)
        plain(self, file, data)

    monkeypatch.setattr(RowWriter, "_write", write)
    with pytest.raises(
        DiskFullError, match="the disk is full .*; make room there, or set WORKBENCH"
    ):
        open_cache(names, root)
    monkeypatch.undo()
    folder = next((root.parent / "cache").rglob("rows.u8")).parent
    assert pixel_file.count_rows(folder, ROW) == 12
    decoded: list[bytes] = []
    original = decode.decode
    monkeypatch.setattr(image_cache, "decode", lambda *what: decoded.append(b"") or original(*what))
    assert shows(open_cache(names, root), names)
    assert len(decoded) == 8, "twelve rows were kept"
    assert (folder / "rows.u8").stat().st_size == 20 * ROW


class Full:
    def write(self, _data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_stop_on_the_way_keeps_what_was_decoded(root, monkeypatch):
    names = save(root, 20)
    monkeypatch.setattr(image_cache, "WINDOW", 5)

    def stop(done: int, _total: int, _unit: str) -> None:
        if done >= 10:
            raise KeyboardInterrupt

    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        open_cache(names, root, progress=stop)
    folder = next((root.parent / "cache").rglob("rows.u8")).parent
    assert pixel_file.count_rows(folder, ROW) == 10
    for thread in set(threading.enumerate()) - before:
        thread.join(10)  # a pool's threads end by themselves, on busy cores a little later
        assert not thread.is_alive(), thread.name
    assert shows(open_cache(names, root), names)


def test_a_hash_is_written_only_after_its_pixels_are_on_the_disk(root, monkeypatch):
    """What a power cut may leave: any prefix of what was not synced."""
    on_disk: dict[str, int] = {}
    syncs: list[str] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        name = Path(f"/proc/self/fd/{handle}").readlink().name
        syncs.append(name)
        on_disk[name] = os.fstat(handle).st_size
        real(handle)

    plain = RowWriter._write

    def write(self, file, data):
        plain(self, file, data)
        if Path(file.name).name == "hashes.bin":
            rows = os.fstat(file.fileno()).st_size // HASH_BYTES
            assert on_disk["rows.u8"] >= rows * ROW

    index = image_cache._write_index

    def write_index(*what: Any) -> None:
        assert on_disk["hashes.bin"] == 50 * HASH_BYTES, "rows may be named once they are safe"
        index(*what)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(RowWriter, "_write", write)
    monkeypatch.setattr(image_cache, "_write_index", write_index)
    monkeypatch.setattr(image_cache, "WINDOW", 5)
    monkeypatch.setattr(pixel_file, "SYNC_BYTES", 20 * ROW)
    names = save(root, 50)
    assert shows(open_cache(names, root), names)
    assert syncs == ["rows.u8", "hashes.bin"] * 3, "after 20, 40 and 50 rows, not for each window"


def test_a_slow_fill_commits_by_the_clock(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(pixel_file.time, "monotonic", lambda: now[0])
    with RowWriter(tmp_path, 4, 0) as writer:
        writer.add(b"k" * HASH_BYTES, b"rows")
        writer.commit_if_due()
        assert pixel_file.count_rows(tmp_path, 4) == 0
        now[0] = pixel_file.SYNC_SECONDS
        writer.commit_if_due()
        assert pixel_file.count_rows(tmp_path, 4) == 1


def test_a_write_that_stalls_stops_no_thread(root, monkeypatch):
    """While the first window is written, windows behind it are decoded, and only so many."""
    monkeypatch.setattr(image_cache, "WINDOW", 5)
    names, decoded = save(root, 60), []
    original = decode.decode

    def counted(*what: Any) -> Any:
        decoded.append(1)
        return original(*what)

    monkeypatch.setattr(image_cache, "decode", counted)
    reached, plain = threading.Event(), RowWriter.add

    def add(self, key, raw):
        if not reached.is_set():
            reached.set()
            for _ in range(1000):
                if len(decoded) == 20:
                    break
                threading.Event().wait(0.01)
            threading.Event().wait(0.05)
            assert len(decoded) == 20, "its own window and three behind it"
        plain(self, key, raw)

    monkeypatch.setattr(RowWriter, "add", add)
    assert shows(open_cache(names, root), names)


def test_files_are_looked_at_by_many_threads_at_once(root, monkeypatch):
    """339,137 files on a network file system: half a millisecond each, one after the other."""
    monkeypatch.setattr(image_cache, "STATS_AT_ONCE", 5)
    names = save(root, 100)
    cache = open_cache(names, root)
    together, plain = threading.Barrier(4), image_cache._mark

    def mark(root: Path, path: str) -> int:
        if int(path.removesuffix(".png")) % 5 == 0 and int(path.removesuffix(".png")) < 20:
            together.wait(60)  # passes only when four threads look at files at the same time
        return plain(root, path)

    monkeypatch.setattr(image_cache, "_mark", mark)
    again = open_cache(names, root)
    assert [again.row(n) for n in names] == [cache.row(n) for n in names]
    assert not together.broken


# -- large JPEGs ---------------------------------------------------------------------------


def jpeg(image: Image.Image, quality: int = 90, **more: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, **more)
    return file.getvalue()


def photo(width: int, height: int, *, blur: float = 0.7, noise: float = 6.0) -> Image.Image:
    """Soft ground, hard edges, sensor noise."""
    generator = np.random.default_rng(width)
    ground = generator.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
    image = Image.fromarray(ground).resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(60):
        x, y, r = (int(generator.integers(0, most)) for most in (width, height, height // 6))
        colour = tuple(int(value) for value in generator.integers(0, 256, 3))
        draw.ellipse([x - r, y - r, x + r, y + r], fill=colour)
    values = np.asarray(image) + generator.normal(0, noise, (height, width, 3))
    return Image.fromarray(values.clip(0, 255).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(blur)
    )


def whole(data: bytes, monkeypatch: pytest.MonkeyPatch, make: Any) -> np.ndarray:
    """The same from a full decode."""
    with monkeypatch.context() as patch:
        patch.setattr(decode, "_shrink", lambda *_: 1)
        return make(data).astype(int)


MAKERS = {
    "cut": lambda data: decode.decode(data, 96, "bicubic"),
    "uncut": lambda data: decode.decode_without_crop(data, 100, 84, "bicubic"),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("size", [(431, 409), (803, 1001), (1607, 1201)])
@pytest.mark.parametrize(("blur", "noise"), [(0.7, 6.0), (0.0, 0.0)])
def test_a_large_jpeg_is_decoded_smaller_within_the_stated_bound(
    monkeypatch, make, size, blur, noise
):
    data, shrinks, plain = jpeg(photo(*size, blur=blur, noise=noise)), [], decode._shrink
    monkeypatch.setattr(decode, "_shrink", lambda *a: shrinks.append(plain(*a)) or shrinks[-1])
    made = make(data).astype(int)
    assert shrinks[0] >= 2
    apart = np.abs(made - whole(data, monkeypatch, make))
    assert apart.mean() < 0.8
    assert np.quantile(apart, 0.999) <= 10


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_turned_jpeg_is_the_same_picture_smaller(monkeypatch, turn):
    exif = Image.Exif()
    exif[decode.ORIENTATION] = turn
    data = jpeg(photo(1201, 803), exif=exif)
    for make in MAKERS.values():
        apart = np.abs(make(data).astype(int) - whole(data, monkeypatch, make))
        assert apart.mean() < 0.5


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_printed_jpegs_keep_their_colours(monkeypatch, mode):
    data = jpeg(photo(900, 900).convert(mode))
    for make in MAKERS.values():
        assert np.abs(make(data).astype(int) - whole(data, monkeypatch, make)).mean() < 0.5


@pytest.mark.parametrize(
    ("size", "format_"), [((383, 900), "JPEG"), ((96, 96), "JPEG"), ((900, 900), "PNG")]
)
def test_what_is_less_than_four_times_as_large_or_no_jpeg_is_bitwise_as_before(
    monkeypatch, size, format_
):
    file = io.BytesIO()
    photo(*size).save(file, format_)
    make = MAKERS["cut"]
    assert np.array_equal(make(file.getvalue()), whole(file.getvalue(), monkeypatch, make))


def test_a_truncated_large_jpeg_is_refused_too():
    data = jpeg(photo(900, 900))
    with pytest.raises(decode.UnusableError, match="truncated or damaged"):
        decode.decode(data[: len(data) // 2], 96, "bicubic")

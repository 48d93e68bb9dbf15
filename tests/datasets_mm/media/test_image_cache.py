"""The image cache: right pixels, defined results for odd files, nothing from outside the root."""

from __future__ import annotations

import io
import os
import pickle
import struct
import threading
import zlib
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets_mm.media.decode import MAX_PIXELS, UnusableError, decode
from datasets_mm.media.image_cache import ImageCache, ImageCacheBuilder

SIZE = 32
Save = Callable[..., str]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def save(root: Path) -> Save:
    def write(name: str, image: Image.Image, **options) -> str:
        image.save(root / name, **options)
        return name

    return write


def open_cache(paths: list[str], root: Path, size: int = SIZE) -> ImageCache:
    return ImageCache.open(paths, root, size, root.parent / "cache")


def pixels(path: str, root: Path) -> np.ndarray:
    cache = open_cache([path], root)
    assert cache.skipped == {}
    return cache.array[cache.row(path)]


def noise(width: int, height: int) -> Image.Image:
    """Random but smooth, as photos are: in white noise the clipping between two passes decides."""
    generator = np.random.default_rng(width * 1000 + height)
    coarse = Image.fromarray(generator.integers(40, 216, (7, 7, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BILINEAR)


@pytest.mark.parametrize(
    ("width", "height"), [(64, 64), (100, 60), (60, 101), (31, 33), (500, 40), (8, 8), (37, 90)]
)
def test_pixels_equal_clips_own_preprocessing(
    width: int, height: int, root: Path, save: Save
) -> None:
    """Oracle: resize the whole picture's short side, then cut the centre, as CLIP is defined."""
    path = save("picture.png", noise(width, height))
    short = min(width, height)
    whole = noise(width, height).resize(
        (int(SIZE * width / short), int(SIZE * height / short)), Image.Resampling.BICUBIC
    )
    left, top = (whole.width - SIZE) // 2, (whole.height - SIZE) // 2
    wanted = np.asarray(whole.crop((left, top, left + SIZE, top + SIZE)), np.int16)
    found = pixels(path, root).astype(np.int16)
    # One pass instead of two: the filter's phase is the same, roundings differ by a level.
    assert np.abs(found - wanted).max() <= 1
    assert abs((found - wanted).mean()) < 0.05  # and no drift in one direction


def test_pixels_equal_torchvision(root: Path, save: Save) -> None:
    transforms = pytest.importorskip("torchvision.transforms.v2", reason="torchvision missing")
    picture = noise(100, 60)
    path = save("picture.png", picture)
    steps = transforms.Compose(
        [
            transforms.Resize(SIZE, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(SIZE),
        ]
    )
    wanted = np.asarray(steps(picture), np.int16)
    found = pixels(path, root).astype(np.int16)
    assert np.abs(found - wanted).max() <= 1


def test_transparency_lies_on_white(root: Path, save: Save) -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([10, 20, 30] + [0] * 765)
    grey = Image.new("LA", (8, 8), (0, 0))
    half = Image.new("RGBA", (8, 8), (0, 0, 0, 128))
    assert (pixels(save("a.png", clear), root) == 255).all()
    assert (pixels(save("b.png", palette, transparency=0), root) == 255).all()
    assert (pixels(save("c.png", grey), root) == 255).all()
    assert (pixels(save("d.png", half), root) == 127).all()
    assert (pixels(save("e.png", palette), root) == [10, 20, 30]).all()


def test_sixteen_bits_keep_their_upper_eight(root: Path) -> None:
    values = np.full((8, 8), 0x80FF, np.uint16)
    Image.fromarray(values).save(root / "deep.png")
    assert (pixels("deep.png", root) == 0x80).all()


def test_cmyk_one_bit_and_grey(root: Path, save: Save) -> None:
    assert (pixels(save("c.jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0))), root)[0, 0] // 16)[
        0
    ] == 15
    assert (pixels(save("b.png", Image.new("1", (8, 8), 1)), root) == 255).all()
    assert (pixels(save("g.png", Image.new("L", (8, 8), 77)), root) == 77).all()


def test_exif_turns_the_picture_upright(root: Path, save: Save) -> None:
    sideways = Image.new("RGB", (40, 40), "black")
    sideways.paste("white", (0, 0, 20, 40))  # left half white; orientation 6 turns it to the top
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = pixels(save("turned.png", sideways, exif=exif), root)
    assert upright[:12].min() > 250
    assert upright[20:].max() < 5


def test_animation_shows_its_first_frame(root: Path) -> None:
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    first.save(root / "moving.webp", save_all=True, append_images=[second], lossless=True)
    assert (pixels("moving.webp", root) == [255, 0, 0]).all()


def test_extreme_shapes_have_pixels(root: Path, save: Save) -> None:
    assert (pixels(save("dot.png", Image.new("RGB", (1, 1), "red")), root) == [255, 0, 0]).all()
    assert pixels(save("line.png", Image.new("RGB", (20_000, 2), "red")), root).shape == (32, 32, 3)


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header promises width x height and whose data is a few bytes of zeros."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [6400, 9000, 14_000, 20_000, 30_000])
def test_a_bomb_is_refused_by_its_header(side: int, root: Path) -> None:
    """6,400² is above our 40 Mpx; Pillow warns above 9,459² and refuses above 13,377²."""
    assert side * side > MAX_PIXELS
    (root / "bomb.png").write_bytes(png_of(side, side))
    assert open_cache(["bomb.png"], root).skipped == {"bomb.png": "more than 40 Mpx"}


def test_text_bomb(root: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("x", "a" * 70_000_000, zip=True)
    Image.new("RGB", (4, 4)).save(root / "text.png", pnginfo=info)
    assert (root / "text.png").stat().st_size < 100_000
    assert "truncated or damaged" in open_cache(["text.png"], root).skipped["text.png"]


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
def test_truncated_at_every_tenth(format_: str, root: Path) -> None:
    buffer = io.BytesIO()
    noise(90, 70).save(buffer, format_)
    whole = buffer.getvalue()
    names = []
    for tenth in range(10):
        names.append(f"{tenth}.img")
        (root / names[-1]).write_bytes(whole[: len(whole) * tenth // 10])
    cache = open_cache(names, root)
    assert set(cache.skipped) == set(names)
    assert all(cache.row(name) == -1 for name in names)


def test_other_formats_are_not_even_tried(root: Path, save: Save) -> None:
    image = Image.new("RGB", (8, 8))
    names = [save(f"a.{kind}", image) for kind in ("gif", "bmp", "tiff", "ppm")]
    (root / "a.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n")
    (root / "text.png").write_text("<html>not found</html>")
    skipped = open_cache([*names, "a.eps", "text.png"], root).skipped
    assert skipped.pop("text.png") == "is a web page (download the file again)"
    assert set(skipped.values()) == {"not JPEG, PNG or WEBP"}
    disguised = save("png.jpg", Image.new("RGB", (8, 8), "red"), format="PNG")
    assert (pixels(disguised, root) == [255, 0, 0]).all()


def test_nothing_from_outside_the_root(root: Path, save: Save) -> None:
    Image.new("RGB", (8, 8), "red").save(root.parent / "secret.png")
    save("inside.png", Image.new("RGB", (8, 8), "blue"))
    (root / "sub").mkdir()
    (root / "out.png").symlink_to(root.parent / "secret.png")
    (root / "door").symlink_to(root.parent)
    (root / "in.png").symlink_to(root / "inside.png")
    (root / "loop.png").symlink_to(root / "loop.png")
    outside = [
        "../secret.png",
        "sub/../../secret.png",
        str(root.parent / "secret.png"),
        "out.png",
        "door/secret.png",
        "inside.png\0.jpg",
    ]
    absent = ["none.png", "loop.png", "x" * 5000, "inside.png/x"]
    cache = open_cache([*outside, *absent, "in.png", "sub", "inside.png"], root)
    assert {cache.skipped[name] for name in outside} == {"outside the image root"}
    assert {cache.skipped[name] for name in absent} == {"missing"}
    assert cache.skipped["sub"] == "not a regular file"
    assert cache.row("in.png") == cache.row("inside.png") >= 0
    assert not (cache.array == [255, 0, 0]).all(axis=-1).any()


def test_pipes_and_devices_do_not_hang(root: Path) -> None:
    os.mkfifo(root / "pipe.png")
    (root / "zero.png").symlink_to("/dev/zero")
    done = threading.Event()

    def look() -> None:
        skipped = open_cache(["pipe.png", "zero.png"], root).skipped
        assert skipped == {
            "pipe.png": "not a regular file",
            "zero.png": "outside the image root",
        }
        done.set()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(20)
    assert done.is_set()


def test_equal_content_has_one_row_and_new_pictures_are_added(root: Path, save: Save) -> None:
    one = save("one.png", noise(40, 40))
    (root / "twin.png").write_bytes((root / one).read_bytes())
    first = open_cache([one, "twin.png", ""], root)
    assert first.row(one) == first.row("twin.png")
    assert first.row("") == -1
    assert first.array.shape == (1, SIZE, SIZE, 3)
    two = save("two.png", noise(41, 40))
    second = open_cache([one, two], root)
    assert second.array.shape == (2, SIZE, SIZE, 3)
    assert np.array_equal(second.array[second.row(one)], first.array[first.row(one)])
    with pytest.raises(ValueError, match="read-only"):
        second.array[0] = 0


def test_second_open_decodes_nothing_and_a_changed_file_is_decoded_again(
    root: Path, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save("a.png", Image.new("RGB", (8, 8), "red"))
    open_cache([path], root)
    decoded: list[str] = []
    original = ImageCacheBuilder._load
    monkeypatch.setattr(
        ImageCacheBuilder, "_load", lambda self, path: decoded.append(path) or original(self, path)
    )
    open_cache([path], root)
    assert decoded == []
    save("a.png", Image.new("RGB", (9, 9), "blue"))
    assert (pixels(path, root) == [0, 0, 255]).all()
    assert decoded == ["a.png"]


def test_a_missing_picture_is_looked_for_again(root: Path, save: Save) -> None:
    assert open_cache(["late.png"], root).skipped == {"late.png": "missing"}
    save("late.png", Image.new("RGB", (8, 8)))
    assert open_cache(["late.png"], root).skipped == {}


@pytest.mark.parametrize("damage", ["rows", "hashes", "index", "both"])
def test_a_torn_cache_heals(damage: str, root: Path, save: Save) -> None:
    names = [save(f"{n}.png", Image.new("RGB", (8, 8), (n, n, n))) for n in range(4)]
    folder = open_cache(names[:3], root).folder
    if damage in {"rows", "both"}:  # a kill in the middle of a window: pixels without a hash
        with (folder / "rows.u8").open("ab") as file:
            file.write(b"\xff" * 1000)
    if damage in {"hashes", "both"}:  # half a hash
        with (folder / "hashes.bin").open("ab") as file:
            file.write(b"\xff" * 7)
    if damage == "index":
        next(folder.glob("index-*.arrow")).write_bytes(b"broken")
    cache = open_cache(names, root)
    assert cache.skipped == {}
    for number, name in enumerate(names):
        assert (cache.array[cache.row(name)] == number).all()
    assert (folder / "rows.u8").stat().st_size == 4 * SIZE * SIZE * 3


def test_lost_rows_are_made_again(root: Path, save: Save) -> None:
    """The file of pixels is shorter than the hashes say: those rows are not believed."""
    names = [save(f"{n}.png", Image.new("RGB", (8, 8), (n, n, n))) for n in range(3)]
    folder = open_cache(names, root).folder
    with (folder / "rows.u8").open("r+b") as file:
        file.truncate(SIZE * SIZE * 3 + 5)
    cache = open_cache(names, root)
    for number, name in enumerate(names):
        assert (cache.array[cache.row(name)] == number).all()


def _fill(arguments: tuple[str, list[str]]) -> dict[str, bytes]:
    root, names = arguments
    cache = open_cache(names, Path(root))
    return {name: cache.array[cache.row(name)].tobytes() for name in names}


def _mean(cache: ImageCache) -> float:
    assert isinstance(cache.array, np.memmap)
    return float(cache.array.mean())


def test_processes_fill_together_and_workers_share_the_map(root: Path, save: Save) -> None:
    names = [save(f"{n}.png", Image.new("RGB", (8, 8), (n, n, n))) for n in range(30)]
    jobs = [(str(root), names[:20]), (str(root), names[10:])]
    with get_context("spawn").Pool(2) as pool:
        for result, (_, wanted) in zip(pool.map(_fill, jobs), jobs, strict=True):
            for name in wanted:
                assert set(result[name]) == {int(name.removesuffix(".png"))}
        cache = open_cache(names, root)
        assert cache.array.shape[0] == 30
        assert len(pickle.dumps(cache)) < 20_000  # 92 kB of pixels stay in the file
        assert pool.map(_mean, [cache]) == [float(cache.array.mean())]


def test_sizes_and_filters_do_not_mix(root: Path, save: Save) -> None:
    path = save("a.png", noise(40, 40))
    small = open_cache([path], root, 16)
    large = open_cache([path], root, 32)
    sharp = ImageCache.open([path], root, 32, root.parent / "cache", resample="lanczos")
    assert small.array.shape[1:] == (16, 16, 3)
    assert large.array.shape[1:] == (32, 32, 3)
    assert not np.array_equal(large.array[0], sharp.array[0])


def test_progress_reaches_the_end(root: Path, save: Save) -> None:
    names = [save(f"{n}.png", Image.new("RGB", (4, 4), (n % 256, n // 256, 0))) for n in range(300)]
    seen: list[tuple[int, int, str]] = []
    ImageCache.open(names, root, 8, root.parent / "cache", progress=lambda *what: seen.append(what))
    assert seen == [(256, 300, "pictures"), (300, 300, "pictures")]


def test_half_a_picture_that_was_filled_up_is_damaged() -> None:
    """Decoders make grey of what is not there: a JPEG needs its end mark, a PNG right sums."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8))
    contents = {}
    for form in ("JPEG", "PNG", "MPO"):
        file = io.BytesIO()
        image.save(file, form)
        contents[form] = file.getvalue()
        decode(contents[form], 8, "bilinear")
        decode(contents[form] + bytes(4096), 8, "bilinear")  # cameras fill up their files
    for content in contents.values():
        cut = len(content) // 2
        with pytest.raises(UnusableError, match="truncated or damaged"):
            decode(content[:cut] + bytes(len(content) - cut), 8, "bilinear")
    flipped = bytearray(contents["PNG"])
    flipped[len(flipped) // 2] ^= 255
    with pytest.raises(UnusableError, match="truncated or damaged"):
        decode(bytes(flipped), 8, "bilinear")
    thumbnail = image.getexif()
    thumbnail[0x010E] = "\xff\xd9"  # an end mark before the picture is none
    file = io.BytesIO()
    image.save(file, "JPEG", exif=thumbnail)
    content = file.getvalue()
    with pytest.raises(UnusableError, match="truncated or damaged"):
        decode(content[: len(content) // 2] + bytes(len(content)), 8, "bilinear")

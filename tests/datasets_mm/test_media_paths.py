"""Paths, patterns and names mean the same in every adapter, and lead nowhere that they may not."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from datasets_mm import cache_health, media_paths
from datasets_mm.building import selection
from datasets_mm.building.build import BuildError, Subset, build
from datasets_mm.media.decode import UnusableError, read_inside
from datasets_mm.media.image_cache import ImageCache
from datasets_mm.profile.describe import DescribeOptions, describe
from datasets_mm.profile.image_checks import PictureCount
from datasets_mm.sources import file_patterns

ADAPTERS = ("jsonl", "m2kr_parquet", "captions", "captions.csv", "challenge")
DOG = unicodedata.normalize("NFC", "강아지")


def _nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


@pytest.fixture
def make(tmp_path: Path, own_recipes: Callable[[str, str], Path]) -> Callable[..., Subset]:
    """Builds a subset of one picture path, by any adapter; the image root is `data/media`."""
    data = tmp_path / "data"
    (data / "media").mkdir(parents=True)

    def build_with(adapter: str, path: str) -> Subset:
        kind, _, ending = adapter.partition(".")
        more = {"challenge": 'dataset = "train"', "m2kr_parquet": 'passages = ["p.parquet"]'}
        uri = {"m2kr_parquet": "r.parquet", "challenge": "r.csv", "captions": "r.json",
               "jsonl": "r.jsonl"}[kind]  # fmt: skip
        uri = f"r.{ending}" if ending else uri
        _write_source(data / uri, kind, path)
        name = adapter.replace(".", "_")
        own_recipes(
            name,
            f'schema = 1\nname = "{name}"\ntitle = "t"\n[source]\nadapter = "{kind}"\n'
            f'uri = ["{uri}"]\nimages = "media"\n{more.get(kind, "")}\n',
        )
        return build(name, tmp_path / "cache", data)

    return build_with


def _write_source(file: Path, adapter: str, path: str) -> None:
    match adapter, file.suffix:
        case "jsonl", _:
            line = {"data_id": "1", "question": "?", "image_path": path, "passage_id": "p",
                    "passage_text": "t", "passage_image_path": path}  # fmt: skip
            file.write_text(json.dumps(line))
        case "m2kr_parquet", _:
            table = {"question_id": ["1"], "question": ["?"], "img_path": [path],
                     "pos_item_ids": [["p"]]}  # fmt: skip
            pq.write_table(pa.table(table), file)
            passages = pa.table({"passage_id": ["p"], "passage_content": ["t"]})
            pq.write_table(passages, file.with_name("p.parquet"))
        case "captions", ".json":
            file.write_text(json.dumps([{"image": path, "caption": "a cat"}]))
        case "captions", _:
            file.write_text(f'image,caption\n"{path}",a cat\n', "utf-8")
        case _:
            file.write_text(f'id,image,question,a,b,c,d,answer\n1,"{path}",?,w,x,y,z,a\n', "utf-8")


def _picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), "red").save(path, "PNG")
    return path


SPELLINGS = [
    # (as the data write it, as the disk has it, what the build says)
    ("sub\\a.png", "sub/a.png", ""),
    (".\\sub\\a.png", "sub/a.png", ""),
    ("./sub//a.png ", "sub/a.png", ""),
    ("sub/./a.png", "sub/a.png", ""),
    (DOG + "/" + DOG + ".png", _nfd(DOG) + "/" + _nfd(DOG) + ".png", "another Unicode form"),
    (_nfd("é.png"), "\u00e9.png", ""),
    (_nfd(DOG) + ".png", _nfd(DOG) + ".png", "another Unicode form"),
    ("Sub/A.PNG", "sub/a.png", "another case of letters"),
    ("sub/a.png", "sub/a.png ", "other blanks"),
    ("sub/a%20b.png", "sub/a b.png", "%-quoting"),
    ("sub/a", "sub/a.png", "an ending that the data do not name"),
    ("sub /a.png", "sub/a.png", "other blanks"),
    ("sub/a.png", "sub\\a.png", "backslashes in their names"),
    ("sub\\b\\a.png", "sub/b\\a.png", "backslashes in their names"),
    (DOG + ".png", DOG.encode("cp949").decode("cp437") + ".png", "another code page"),
    (DOG + "/a.png", _nfd(DOG).encode().decode("cp437") + "/a.png", "another code page"),
    (DOG + ".png", os.fsdecode(DOG.encode("cp949")) + ".png", "another code page"),
    ("\u00e9.png", os.fsdecode(b"\xe9.png"), "another code page"),
]


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize(("written", "stored", "notice"), SPELLINGS)
def test_every_adapter_finds_the_file_that_is_meant(
    make: Callable[..., Subset],
    tmp_path: Path,
    adapter: str,
    written: str,
    stored: str,
    notice: str,
) -> None:
    media = tmp_path / "data" / "media"
    _picture(media / stored)
    subset = make(adapter, written)
    assert len(subset) == 1
    path = subset.records["image_path"][0].as_py()
    assert path == media_paths.clean_path(written)
    assert any(notice in said for said in subset.manifest["notices"]) or not notice
    # What reads pixels finds the same file.
    cache = ImageCache.open([path], subset.image_root, 8, tmp_path / "cache")
    assert cache.skipped == {}
    assert read_inside(subset.image_root, path) == (media / stored).read_bytes()


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("C:\\data\\media\\a.png", "drive letter"),
        ("c:a.png", "drive letter"),
        ("\\\\server\\share\\a.png", "network path|outside"),
        ("https://host/a.png", "is a URL"),
        ("..\\secret.png", "outside the image root"),
        ("sub/../../secret.png", "outside the image root"),
        ("/etc/passwd", "outside the image root"),
        ("twice.png", "missing"),
        ("file://localhost/etc/passwd", "outside the image root"),
        ("data:image/png;base64,iVBORw0KGgo=", "written into the data as text"),
        ("/9j/4AAQSkZJRg" + "A" * 5000, "written into the data as text"),
        ("iVBORw0KGgo" + "A" * 5000, "written into the data as text"),
    ],
)
def test_what_lies_elsewhere_is_named_and_never_opened(
    make: Callable[..., Subset], tmp_path: Path, adapter: str, written: str, reason: str
) -> None:
    media = tmp_path / "data" / "media"
    _picture(media / "a.png")
    _picture(media / "sub" / "b.png")
    _picture(media / "Twice.png")
    _picture(media / "TWICE.png")  # two that fit: neither is taken
    _picture(tmp_path / "data" / "secret.png")
    with pytest.raises(BuildError, match=reason):
        make(adapter, written)
    with pytest.raises(UnusableError):
        read_inside(media.resolve(), media_paths.clean_path(written))


def test_the_exact_spelling_comes_before_any_other(tmp_path: Path) -> None:
    for name in (DOG, _nfd(DOG), "a.png", "A.png"):
        (tmp_path / name).touch()
    for name in (DOG, "a.png", "A.png"):
        assert media_paths.find_on_disk(tmp_path, name) == name


@given(st.text(max_size=40))
def test_cleaning_is_done_once_for_all(text: str) -> None:
    once = media_paths.clean_path(text)
    assert media_paths.clean_path(once) == once
    assert "\\" not in once
    assert not media_paths.find_on_disk(Path("/nonexistent"), once).startswith("//nonexistent")


@given(
    st.lists(
        st.sampled_from(["..", ".", "a", "A", "%2e%2e", "b", "", "\\", "link", "é"]), max_size=6
    )
)
def test_no_spelling_leads_out_of_the_root(parts: list[str]) -> None:
    """Whatever `on_disk` returns is judged like any path; it adds no `..` that was not there."""
    path = media_paths.clean_path("/".join(parts))
    spelling = media_paths.find_on_disk(Path(__file__).parent, path)
    assert spelling == path or ".." not in spelling.split("/")


def test_a_folder_without_permission_is_not_a_folder_without_pictures(
    make: Callable[..., Subset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _picture(tmp_path / "data" / "media" / "locked" / "a.png")
    with _unreadable(monkeypatch, "locked"):
        with pytest.raises(BuildError) as error:
            make("captions", "locked/a.png")
        with pytest.raises(UnusableError, match="cannot be read"):
            read_inside((tmp_path / "data" / "media").resolve(), "locked/a.png")
    assert "1 picture cannot be read (Permission denied)" in str(error.value)
    assert "give this user the right to read the pictures" in str(error.value)
    assert "missing" not in str(error.value)


def test_a_whole_picture_folder_without_permission_is_refused(
    make: Callable[..., Subset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _picture(tmp_path / "data" / "media" / "a.png")
    make("jsonl", "a.png")
    with _unreadable(monkeypatch, "media"):
        with pytest.raises(BuildError, match=r"picture folder .* cannot be read \(Permission"):
            build("jsonl", tmp_path / "cache", tmp_path / "data")


class _unreadable:  # noqa: N801 - reads as a statement
    """System calls below folders of this name fail as they do for a user without permission."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self._monkeypatch, self._name = monkeypatch, name

    def __enter__(self) -> None:
        def guarded(name, call):
            def look(path=".", *args, **kwargs):
                text = "" if isinstance(path, int) else os.fspath(path)
                is_listed = name in {"scandir", "listdir"} and text.endswith(f"/{self._name}")
                if f"/{self._name}/" in text or is_listed:
                    raise PermissionError(13, "Permission denied", text)
                return call(path, *args, **kwargs)

            return look

        for name in ("lstat", "stat", "scandir", "listdir"):
            self._monkeypatch.setattr(os, name, guarded(name, getattr(os, name)))

    def __exit__(self, *_: object) -> None:
        self._monkeypatch.undo()


# -- patterns of label files -------------------------------------------------------------------


def _names(pattern: str, root: Path) -> list[str]:
    return [
        path.relative_to(root).as_posix()
        for path in file_patterns.match_pattern(pattern, root).files
    ]


def test_links_to_folders_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    root, disk2 = tmp_path / "data", tmp_path / "disk2"
    for folder, name in ((root / "labels" / "part1", "a.json"), (disk2 / "deep", "b.json")):
        folder.mkdir(parents=True)
        (folder / name).touch()
    (root / "labels" / "part2").symlink_to(disk2)
    (disk2 / "loop").symlink_to(root / "labels")
    (disk2 / "self").symlink_to(disk2)
    (root / "labels" / "again").symlink_to(root / "labels" / "part1")
    (root / "labels" / "file.json").symlink_to(disk2 / "deep" / "b.json")
    wanted = ["labels/file.json", "labels/part1/a.json", "labels/part2/deep/b.json"]
    assert _names("labels/**/*.json", root) == wanted
    assert _names("**/*.json", root) == wanted
    assert _names("labels/*/*.json", root) == ["labels/again/a.json", "labels/part1/a.json"]


PATTERNS = (
    "*.json", "**/*.json", "b/**/*.json", "*/*.json", "b/c.json", "?.json", "[ab].json", "b/d/*",
    "nothing/*.json", "**/d/*.json", "x[1].json",
)  # fmt: skip


def test_patterns_mean_what_glob_means_where_there_are_no_links(tmp_path: Path) -> None:
    for name in ("a.json", "b/c.json", "b/d/e.json", "b/d/f.txt", ".h/g.json", "x[1].json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for pattern in PATTERNS:
        wanted = sorted(p for p in tmp_path.glob(pattern) if p.is_file())
        if pattern == "x[1].json":
            wanted = [tmp_path / "x[1].json"]  # the name itself comes before its use as a pattern
        assert list(file_patterns.match_pattern(pattern, tmp_path).files) == wanted, pattern


def test_names_of_label_files_are_compared_like_those_of_pictures(tmp_path: Path) -> None:
    (tmp_path / _nfd("라벨")).mkdir()
    (tmp_path / _nfd("라벨") / "A.JSON").touch()
    (tmp_path / _nfd("라벨") / "b.json").touch()
    (tmp_path / _nfd("라벨") / "._b.json").touch()  # macOS writes these beside each file
    assert [Path(name).name for name in _names("라벨/*.json", tmp_path)] == ["A.JSON", "b.json"]
    assert [Path(name).name for name in _names("라벨/B.json", tmp_path)] == ["b.json"]


def test_what_a_pattern_cannot_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = tmp_path / "labels"
    (labels / "locked").mkdir(parents=True)
    (labels / "a.json").touch()
    (labels / "gone").symlink_to(tmp_path / "nowhere")
    with _unreadable(monkeypatch, "locked"):
        found = file_patterns.match_pattern("labels/**/*.json", tmp_path)
    assert [path.name for path in found.files] == ["a.json"]
    assert any("gone is a link that leads nowhere" in said for said in found.notices)
    assert any("locked cannot be read (Permission denied)" in said for said in found.notices)


def test_what_was_passed_over_is_in_the_manifest(
    tmp_path: Path, own_recipes: Callable[[str, str], Path]
) -> None:
    data = tmp_path / "data"
    _picture(data / "media" / "a.png")
    (data / "labels").mkdir()
    (data / "labels" / "a.json").write_text('{"image": "a.png", "caption": "a cat"}')
    own_recipes(
        "two_disks",
        'schema = 1\nname = "two_disks"\ntitle = "t"\n[source]\nadapter = "captions"\n'
        'uri = ["labels/**/*.json"]\nimages = "media"\n',
    )
    first = build("two_disks", tmp_path / "cache", data)
    assert first.manifest["notices"] == []
    (data / "labels" / "part2").symlink_to(tmp_path / "unmounted")
    second = build("two_disks", tmp_path / "cache", data)
    assert "part2 is a link that leads nowhere" in second.manifest["notices"][0]
    assert second.fingerprint == first.fingerprint


def test_lost_pictures_of_every_kind_are_told_apart(tmp_path: Path) -> None:
    root = tmp_path.resolve()
    _picture(root / "A.png")
    (root / "folder.png").mkdir()
    respelled: dict[str, str] = {}
    names = ["a.png", "folder.png", "no.png", "x\0y", "D:/x.png"]
    lost = selection.find_lost_pictures(names, root, respelled)
    assert respelled == {"a.png": "A.png"}
    assert lost == {
        "folder.png": "picture is not a regular file",
        "no.png": "picture missing",
        "x\0y": "picture outside the image root",
        "D:/x.png": "picture has an absolute Windows path (drive letter; make it relative to the "
        "image root)",
    }


def test_a_check_looks_for_pictures_as_a_build_does(tmp_path: Path) -> None:
    """It called pictures missing that lie there in another spelling, or that nobody may read."""
    root = tmp_path.resolve()
    _picture(root / "sub" / "A.PNG")
    for number in range(6):
        _picture(root / f"{number}.png")
    count = PictureCount(root, 0)
    count.check_paths(["sub/a.png", "no.png", *(f"{number}.png" for number in range(6))])
    profile = count.profile(lambda *_: None)
    assert profile.lost == {"missing": 1}
    assert profile.opened == 7
    assert (profile.alike, profile.alike_example) == (7, "0.png")


def test_no_sentence_has_a_million_characters(make: Callable[..., Subset], tmp_path: Path) -> None:
    _picture(tmp_path / "data" / "media" / "a.png")
    make("jsonl", "a.png")
    with pytest.raises(BuildError) as error:
        make("jsonl", "iVBORw0KGgo" + "A" * 1_000_000)
    assert len(str(error.value)) < 800


def test_names_of_other_bytes_are_read_and_shown(
    tmp_path: Path, own_recipes: Callable[[str, str], Path]
) -> None:
    """Data folder, label file and picture have names of Latin-1, as an old disk has them."""
    data = tmp_path / os.fsdecode(b"daten_\xe9")
    _picture(data / "media" / "a.png")
    (data / os.fsdecode(b"\xe9.json")).write_text('[{"image": "a.png", "caption": "x"}, 5]')
    own_recipes(
        "latin",
        'schema = 1\nname = "latin"\ntitle = "t"\n[source]\nadapter = "captions"\n'
        'uri = ["*.json"]\nimages = "media"\n',
    )
    subset = build("latin", tmp_path / "cache", data)
    assert subset.manifest["source_examples"] == {"line is not an object": ["\\xe9.json"]}
    cache = ImageCache.open(["a.png"], subset.image_root, 8, tmp_path / "cache")
    assert cache.skipped == {}
    folder = tmp_path / "cache" / "images" / cache.folder.name
    assert cache_health.check_image_cache(folder)["checked"] == 1
    request = DescribeOptions("latin", tmp_path / "cache", data)
    assert describe(request, lambda *_: None).model_dump_json()
    own_recipes(
        "other",
        'schema = 1\nname = "other"\ntitle = "t"\n[source]\nadapter = "captions"\n'
        'uri = ["labels/*.json"]\nimages = "media"\n',
    )
    with pytest.raises(BuildError) as error:
        build("other", tmp_path / "cache", data)
    assert "\\xe9.json" in str(error.value)
    assert str(error.value).replace(str(data), "").isprintable()

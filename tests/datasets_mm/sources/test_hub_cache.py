"""Data from the hub's local cache, and the download that fills it (the hub itself is not asked)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from unittest import mock

import huggingface_hub
import pytest
from huggingface_hub import errors
from huggingface_hub.errors import LocalEntryNotFoundError
from PIL import Image

from datasets_mm import catalog
from datasets_mm.building import download
from datasets_mm.building.build import build, main
from datasets_mm.sources import hub_cache
from datasets_mm.sources.fingerprint import SourceError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAMES = ("jsonl/m2kr/okvqa_test.jsonl", "jsonl/m2kr/okvqa_passages_test.jsonl")
TYPED = Path(__file__).parents[2] / "fixtures" / "m2kr"


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache; no network."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "hub"


def fill(cache: Path) -> Path:
    """What huggingface_hub leaves behind: refs, blobs, and a snapshot of links."""
    repo = cache / "datasets--aimagelab--ReT-M2KR"
    snapshot = repo / "snapshots" / COMMIT
    (repo / "blobs").mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    for number, name in enumerate(NAMES):
        blob = repo / "blobs" / f"{number:040}"
        blob.write_bytes((TYPED / f"ret_{Path(name).name}").read_bytes())
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(f"../../../../blobs/{blob.name}")
    return snapshot


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number in (297147, 339761, 357586):
        path = tmp_path / "pictures" / f"val2014/COCO_val2014_{number:012}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    return tmp_path / "pictures"


def test_the_cache_is_found_and_its_commit_recorded(
    cached: Path, pictures: Path, tmp_path: Path
) -> None:
    assert hub_cache.find_snapshot("aimagelab/ReT-M2KR", "main") is None
    snapshot = fill(cached)
    assert hub_cache.find_snapshot("aimagelab/ReT-M2KR", "main") == snapshot
    assert hub_cache.find_snapshot("aimagelab/ReT-M2KR", COMMIT) == snapshot
    subset = build("okvqa_test", tmp_path / "cache", None, None, str(pictures))
    assert len(subset) == 4
    asked = {"hub": "aimagelab/ReT-M2KR", "revision": "main", "commit": COMMIT}
    assert subset.manifest["origin"] == asked
    # The same files in a folder are the same data, and a folder that is given wins.
    local = build("okvqa_test", tmp_path / "cache", snapshot, None, str(pictures))
    assert local.fingerprint == subset.fingerprint
    assert local.manifest["origin"] == {}


def test_the_hub_s_own_library_reads_the_cache_that_we_read(cached: Path) -> None:
    snapshot = fill(cached)
    theirs = huggingface_hub.try_to_load_from_cache(
        "aimagelab/ReT-M2KR", NAMES[0], cache_dir=cached, repo_type="dataset"
    )
    assert theirs == str(snapshot / NAMES[0])


def test_without_data_the_remedies_are_named(cached: Path, tmp_path: Path) -> None:
    said = catalog.find_problem("okvqa_test", None)
    assert said is not None
    assert f"is not in the hub cache {cached}" in said
    assert "give --set data_root=/folder, or download it: workbench data build" in said
    fill(cached)
    said = catalog.find_problem("okvqa_test", None)
    assert said is not None
    assert "name their folder with --set image_root=/folder (or image_root=okvqa=/folder)" in said


def test_a_download_names_only_what_is_needed_and_shows_its_progress(
    cached: Path,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: dict[str, Any] = {}

    def fake(repository: str, *, tqdm_class: Any, **more: Any) -> str:
        asked.update(more, repository=repository)
        bar = tqdm_class(desc="Reconstructing", total=0, initial=0, unit="B", unit_scale=True)
        bar.total = 2_000
        for _ in range(4):
            bar.update(500)
            bar.refresh()
        bar.close()
        files = tqdm_class(range(2), desc="Fetching 2 files", total=2)
        assert list(files) == [0, 1]
        return str(fill(cached))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake)
    place = ["--cache-root", str(tmp_path / "cache"), "--image-root", str(pictures)]
    assert main(["okvqa_test", "--download", *place]) == 0
    assert (asked["repository"], asked["repo_type"]) == ("aimagelab/ReT-M2KR", "dataset")
    assert asked["revision"] == "main"
    assert set(NAMES) <= set(asked["allow_patterns"])
    assert not any("images" in pattern for pattern in asked["allow_patterns"])
    spoken = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    loaded = [s for s in spoken if s["kind"] == "progress" and s["total"] == 2_000]
    assert loaded[-1] == {"kind": "progress", "done": 2_000, "total": 2_000, "unit": "bytes"}
    assert spoken[-1]["manifest"]["origin"]["commit"] == COMMIT


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("okvqa_test", "aimagelab/ReT-M2KR at main cannot be downloaded (no way); try again"),
        ("emoji_val", "its recipe names no hub repository to download from"),
    ],
)
def test_a_download_that_fails_says_what_to_do(
    name: str,
    said: str,
    cached: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise LocalEntryNotFoundError("no way")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    assert main([name, "--download", "--cache-root", str(tmp_path / "cache")]) == 1
    spoken = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert spoken["kind"] == "failed"
    assert spoken["error"].startswith(f"subset '{name}': {said}")


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        (errors.GatedRepoError, "accept its terms at https://huggingface.co/datasets/"),
        (errors.RepositoryNotFoundError, "check the name, `hub` in the recipe; if"),
        (errors.RevisionNotFoundError, "check `revision` in the recipe"),
        (errors.HfHubHTTPError, "try again where the hub can be reached"),
        (errors.HFValidationError, "`hub` in the recipe is no owner/name"),
    ],
)
def test_each_refusal_of_the_hub_has_its_own_remedy(
    kind: type[Exception], remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {"response": mock.MagicMock()} if issubclass(kind, errors.HfHubHTTPError) else {}
    refuse = mock.Mock(side_effect=kind("no", **more))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(SourceError, match=re.escape(f"cannot be downloaded (no); {remedy}")):
        download.download_subset("okvqa_test", lambda *_: None)


def test_the_real_library_offline_gives_one_sentence(
    cached: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["okvqa_test", "--download", "--cache-root", str(tmp_path / "cache")]) == 1
    spoken = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert "cannot be downloaded" in spoken["error"]
    assert "give --set data_root=" in spoken["error"]

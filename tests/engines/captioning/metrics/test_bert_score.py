"""BERTScore of a small encoder against a loop in float64."""

import json

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from engines.captioning.metrics.bert_score import BertScorer, build_score
from engines.emitter import EngineError

WORDS = [
    "[PAD]", "[CLS]", "[SEP]", "[UNK]", "a", "red", "car", "the", "two", "cats", "dogs", "lie",
    "on", "sofa", "남자가", "말을", "타고",
]  # fmt: skip
CAPTIONS = ["a red car", "two cats lie on the sofa", "", "the the the", "남자가 말을", "car " * 40]
REFERENCES = [
    ["the red car", "a car"], ["two dogs lie on a sofa"], ["a car"], ["the"], ["말을 타고"],
    ["car a", "sofa " * 40],
]  # fmt: skip


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("bert") / "bert-base-multilingual-cased"
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=32, num_hidden_layers=3, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=16,
    )  # fmt: skip
    BertModel(config, add_pooling_layer=False).eval().save_pretrained(folder)
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def by_hand(folder, candidate: str, reference: str) -> float:
    """F1 of the outputs of layer 2; [CLS] and [SEP] are matched, and left out of both means."""
    from transformers import BertModel

    model = BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    vectors = []
    for text in (candidate, reference):
        ids = torch.tensor([[1, *[WORDS.index(word) for word in text.split()][:14], 2]])
        with torch.no_grad():
            states = model(ids, output_hidden_states=True).hidden_states[2][0].double()
        vectors.append(states / states.norm(dim=-1, keepdim=True))
    said, right = vectors
    if len(said) == 2 or len(right) == 2:
        return 0.0
    cosines = said @ right.T
    precision, recall = (cosines.amax(axis)[1:-1].mean() for axis in (1, 0))
    return float(2 * precision * recall / (precision + recall))


def test_it_is_the_greedy_matching_of_token_vectors(encoder):
    scorer = BertScorer(f"path:{encoder}", 2)
    score = build_score(scorer, CAPTIONS, REFERENCES)
    expected = [
        max(by_hand(encoder, candidate, reference) for reference in references)
        for candidate, references in zip(CAPTIONS, REFERENCES, strict=True)
    ]
    assert score.per_item == pytest.approx(expected, abs=1e-6)
    assert score.per_item[2] == 0
    assert score.name == "BERTScore F1 (bert-base-multilingual-cased, layer 2)"
    assert score.method.endswith("not rescaled; 2 texts were longer than the encoder reads")


def test_what_cannot_be_scored_is_named(encoder, tmp_path):
    with pytest.raises(EngineError, match="bert_score_layer = 9: .* has 3 layers"):
        BertScorer(f"path:{encoder}")
    other = tmp_path / "other"
    other.symlink_to(encoder)
    with pytest.raises(EngineError, match="names no layer for it; set bert_score_layer to one of"):
        BertScorer(f"path:{other}")
    with pytest.raises(EngineError, match="is neither path:/abs/dir nor hub:org/name"):
        BertScorer(str(encoder))
    with pytest.raises(EngineError, match="hf download org/absent"):
        BertScorer("hub:org/absent")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(EngineError, match="lacks model.safetensors, tokenizer.json"):
        BertScorer(f"path:{tmp_path}")

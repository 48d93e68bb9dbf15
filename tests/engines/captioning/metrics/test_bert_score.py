"""BERTScore of a small multilingual BERT against a loop in float64."""

import json

import pytest
import torch

from engines.captioning.metrics.bert_score import BertScorer, build_score, choose_layer
from engines.emitter import EngineError
from tests.engines import text_encoder

TEXTS = ["a red car", "the two cats lie on the sofa", "two dogs", "남자가 말을 타고 있다"]
CAPTIONS = ["a red car", "two cats lie on the sofa", "", "the the the", "남자가 말을", "car " * 40]
REFERENCES = [
    ["the red car", "a car"], ["two dogs lie on a sofa"], ["a car"], ["the"], ["말을 타고"],
    ["car a", "sofa " * 40],
]  # fmt: skip
LAYER = 9
"""That of the package bert-score for this model."""


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return text_encoder.write(tmp_path_factory.mktemp("bert"), TEXTS, positions=16)


def by_hand(model, tokenizer, candidate: str, reference: str) -> float:
    """F1 of the outputs of layer 9; [CLS] and [SEP] are matched, and left out of both means."""
    vectors = []
    for text in (candidate, reference):
        ids = tokenizer.encode(text, add_special_tokens=False).ids[:14]
        with torch.no_grad():
            states = model(torch.tensor([[2, *ids, 3]]), output_hidden_states=True).hidden_states
        layer = states[LAYER][0].double()
        vectors.append(layer / layer.norm(dim=-1, keepdim=True))
    said, right = vectors
    if len(said) == 2 or len(right) == 2:
        return 0.0
    cosines = said @ right.T
    precision, recall = (cosines.amax(axis)[1:-1].mean() for axis in (1, 0))
    return float(2 * precision * recall / (precision + recall))


def test_it_is_the_greedy_matching_of_token_vectors(encoder):
    """The folder has the published names of mBERT's tensors, and the heads of pre-training."""
    from tokenizers import Tokenizer
    from transformers import BertModel

    score = build_score(BertScorer(f"path:{encoder}"), CAPTIONS, REFERENCES)
    model = BertModel.from_pretrained(encoder, add_pooling_layer=False).eval()
    tokenizer = Tokenizer.from_file(str(encoder / "tokenizer.json"))
    expected = [
        max(by_hand(model, tokenizer, candidate, reference) for reference in references)
        for candidate, references in zip(CAPTIONS, REFERENCES, strict=True)
    ]
    assert score.per_item == pytest.approx(expected, abs=1e-6)
    assert score.per_item[2] == 0
    assert score.name == f"BERTScore F1 ({text_encoder.NAME}, layer {LAYER})"
    assert score.method.endswith("not rescaled; 2 texts were longer than the encoder reads")


def test_the_weights_of_layer_norms_are_read_by_their_published_names(encoder):
    from safetensors.torch import load_file

    published = load_file(encoder / "model.safetensors")
    loaded = BertScorer(f"path:{encoder}")._model.state_dict()
    for old, new in (("gamma", "weight"), ("beta", "bias")):
        name = "encoder.layer.8.output.LayerNorm"
        assert torch.equal(loaded[f"{name}.{new}"], published[f"bert.{name}.{old}"])


def test_what_cannot_be_scored_is_named(encoder, tmp_path):
    with pytest.raises(EngineError, match="bert_score_layer = 13: .* has 12 layers"):
        BertScorer(f"path:{encoder}", 13)
    other = tmp_path / "other"
    other.symlink_to(encoder)
    with pytest.raises(EngineError, match="names no layer for it; set bert_score_layer to one of"):
        BertScorer(f"path:{other}")
    with pytest.raises(EngineError, match="is neither path:/abs/dir nor hub:org/name"):
        BertScorer(str(encoder))
    with pytest.raises(EngineError, match="bert_score = hub:org/absent: .*`hf download org/absent"):
        BertScorer("hub:org/absent")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(EngineError, match="lacks model.safetensors, tokenizer.json"):
        BertScorer(f"path:{tmp_path}")


def test_a_revision_is_no_part_of_the_name_that_a_layer_is_known_by():
    assert choose_layer("google-bert/bert-base-uncased@a265f77", 0, 12) == 9

"""A multilingual BERT in small sizes, in the layout in which its weights are published."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

NAME = "bert-base-multilingual-cased"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def write(folder: Path, texts: Sequence[str], positions: int = 512) -> Path:
    """Folder `NAME` under `folder`: WordPiece of `texts`, 12 layers, random weights.

    As on the hub, the weights are those of pre-training (`bert.…`, and heads that nothing reads)
    and LayerNorms have `gamma` and `beta`.
    """
    import torch
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import BertConfig, BertForPreTraining

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=list(SPECIAL))
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=48, num_hidden_layers=12,
        num_attention_heads=12, intermediate_size=96, max_position_embeddings=positions,
        architectures=["BertForMaskedLM"],
    )  # fmt: skip
    torch.manual_seed(0)
    weights = BertForPreTraining(config).state_dict()
    published = {}
    for name, tensor in weights.items():
        if name.startswith("cls.predictions.decoder"):
            continue  # tied
        drawn = tensor + 0.1 * torch.randn_like(tensor) if "LayerNorm" in name else tensor
        old = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        published[old.replace("LayerNorm.bias", "LayerNorm.beta")] = drawn.contiguous()
    path = folder / NAME
    path.mkdir(parents=True)
    save_file(published, path / "model.safetensors", {"format": "pt"})
    (path / "config.json").write_text(json.dumps(config.to_dict()))
    tokenizer.save(str(path / "tokenizer.json"))
    return path

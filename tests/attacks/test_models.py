"""Model folders from strangers: nothing in them is run, fetched, or believed about its size."""

from __future__ import annotations

import json
import os
import pickle
import struct
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel

from engines import messages, model_catalog
from engines.emitter import EngineError
from engines.retrieval.models import factory, tokenizer
from engines.retrieval.params import Params
from engines.torchkit.checkpointing import checkpoints
from engines.torchkit.modeling import model_config
from workbench.supervisor import exit_cause


class Sentinel:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    thin = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2}  # fmt: skip
    config = CLIPConfig(
        text_config={**thin, "vocab_size": 50, "max_position_embeddings": 8, "bos_token_id": 1,
                     "eos_token_id": 49, "pad_token_id": 0},
        vision_config={**thin, "image_size": 32, "patch_size": 16}, projection_dim=8,
    )  # fmt: skip
    CLIPModel(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_text("{}")
    return folder


@pytest.fixture
def folder(healthy: Path, tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    for file in healthy.iterdir():
        (made / file.name).write_bytes(file.read_bytes())
    return made


def configure(folder: Path, **extra: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **extra}))


def load(folder: Path):
    """As the engine does; its errors are sentences."""
    entry = model_catalog.ModelEntry(name="x", family="clip", path=str(folder))
    return factory.from_folder(entry, folder, None, Params(image_size=32, max_length=8))


def test_pickled_weights_are_named_and_never_loaded(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    sentinel = tmp_path / "ran"
    for name in ("pytorch_model.bin", "model.pt", "model.ckpt", "optimizer.bin"):
        (folder / name).write_bytes(pickle.dumps(Sentinel(sentinel)))
    said = model_catalog.find_problem(model_catalog.load(f"path:{folder}"))
    assert said is not None
    assert "pickled weights, which are never loaded" in said
    with pytest.raises(EngineError, match="cannot be loaded"):
        load(folder)
    assert not sentinel.exists()


def test_the_sentinel_would_have_run(tmp_path: Path) -> None:
    """Without this the test above could not fail."""
    pickle.loads(pickle.dumps(Sentinel(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


def test_pickle_named_safetensors_is_no_weight(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps(Sentinel(tmp_path / "ran")))
    with pytest.raises(EngineError, match="cannot be loaded"):
        load(folder)
    assert not (tmp_path / "ran").exists()


def test_code_beside_the_weights_is_never_imported(folder: Path, tmp_path: Path) -> None:
    sentinel = tmp_path / "ran"
    body = f"from pathlib import Path\nPath({str(sentinel)!r}).touch()\n"
    for name in ("modeling_evil.py", "configuration_evil.py", "tokenization_evil.py", "torch.py"):
        (folder / name).write_text(body)
    automatic = {"AutoModel": "modeling_evil.Evil", "AutoConfig": "configuration_evil.Evil"}
    configure(folder, auto_map=automatic, trust_remote_code=True)
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"auto_map": {"AutoTokenizer": ["tokenization_evil.Evil", None]}})
    )
    assert load(folder) is not None
    assert not sentinel.exists()
    assert not [name for name in sys.modules if "evil" in name]


@pytest.mark.parametrize("depth", ["", "vision_config"])
@pytest.mark.parametrize(
    "order",
    [
        {"attn_implementation": "evil/kernels"},
        {"_attn_implementation": "evil/kernels"},
        {"_attn_implementation_internal": "evil/kernels"},
        {"_attn_implementation_autoset": True, "experts_implementation": "evil/kernels"},
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
        {"transformers_weights": "../../evil.safetensors"},
        {"use_kernels": True, "kernel_config": {"x": "evil/kernels"}},
    ],
    ids=lambda order: next(iter(order)),
)
def test_no_key_of_a_config_chooses_code(
    folder: Path, order: dict, depth: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The `kernels` package would fetch such a repository from the hub and run it."""
    asked = []
    monkeypatch.setitem(sys.modules, "kernels", Trap(asked))
    own = json.loads((folder / "config.json").read_text())
    configure(folder, **({depth: {**own[depth], **order}} if depth else order))
    model = load(folder).clip
    assert asked == []
    assert model.config._attn_implementation == "sdpa"
    assert {type(m) for m in model.modules() if isinstance(m, torch.nn.Linear)} == {torch.nn.Linear}


class Trap:
    """A module that notes what is taken from it."""

    __spec__ = None
    __path__: tuple[str, ...] = ()

    def __init__(self, asked: list[str]) -> None:
        self.__dict__["asked"] = asked

    def __getattr__(self, name: str):
        if not name.startswith("__"):
            self.asked.append(name)
        raise AttributeError(name)


def test_sizes_are_kept_when_orders_are_dropped() -> None:
    stated = {"hidden_size": 8, "kernel_size": 3, "vision_config": {"patch_size": 16, "x": [1]}}
    assert model_config.drop_code_keys({**stated, "auto_map": {}}) == stated


@pytest.mark.parametrize(
    "config",
    [b"", b"[]", b"[" * 100_000, b"\xff\xfe", b'{"model_type":', b'"clip"', b"null"],
    ids=lambda b: repr(b[:12]),
)
def test_a_config_that_is_none_is_a_sentence(folder: Path, config: bytes) -> None:
    (folder / "config.json").write_bytes(config)
    with pytest.raises(EngineError):
        load(folder)
    with pytest.raises(LookupError):
        model_catalog.load(f"path:{folder}")


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"text_config": {"max_position_embeddings": None}}, "max_position_embeddings = None"),
        ({"vision_config": {"image_size": "224"}}, "image_size = '224'"),
        ({"model_type": "siglip2", "vision_config": {"num_patches": -4}}, "num_patches = -4"),
    ],
)
def test_a_size_that_is_none_is_a_sentence(
    folder: Path, config: dict[str, object], sentence: str
) -> None:
    configure(folder, **config)
    with pytest.raises(LookupError, match=f"{sentence}; a whole number is wanted"):
        model_catalog.load(f"path:{folder}")


@pytest.mark.parametrize("size", [[], None, "x", -1])
def test_a_size_in_the_other_layout_is_a_sentence(tmp_path: Path, size: object) -> None:
    stated = {"model_cfg": {"vision_cfg": {"image_size": size}, "text_cfg": "none"}}
    (tmp_path / model_catalog.OPEN_CLIP).write_text(json.dumps(stated))
    with pytest.raises(LookupError, match="a whole number is wanted"):
        model_catalog.load(f"path:{tmp_path}")


@pytest.mark.parametrize(
    "sizes",
    [{"hidden_size": 32}, {"num_attention_heads": 3}, {"hidden_act": "none"}],
    ids=str,
)
def test_sizes_that_do_not_fit_the_weights_are_a_sentence(
    folder: Path, sizes: dict[str, object]
) -> None:
    """transformers raises RuntimeError, a class of its own, and KeyError."""
    text = json.loads((folder / "config.json").read_text())["text_config"]
    configure(folder, text_config={**text, **sizes})
    with pytest.raises(EngineError, match="cannot be loaded"):
        load(folder)


def test_weights_that_lack_tensors_are_refused(folder: Path) -> None:
    """transformers would fill them with random numbers, and evaluate those."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    lost = sorted(name for name in tensors if "q_proj" in name)
    save_file({n: t for n, t in tensors.items() if n not in lost}, path, {"format": "pt"})
    with pytest.raises(EngineError, match=f"lack {len(lost)} tensors of the model .{lost[0]}"):
        load(folder)


@pytest.mark.parametrize("text", ["", "no JSON", '{"model": 1}'])
def test_a_tokenizer_that_is_none_is_a_sentence(folder: Path, text: str) -> None:
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(EngineError, match="tokenizer.json: is no tokenizer"):
        tokenizer.load_model_tokenizer(folder, "clip")


def header(text: bytes, length: int | None = None, body: bytes = b"") -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text + body


TENSOR = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
HEADERS = {
    "empty file": b"",
    "eight bytes": b"\0" * 8,
    "claims 16 EiB": header(b"{}", 2**64 - 1),
    "claims 1 TiB": header(b"{}", 1 << 40),
    "no JSON": header(b"x" * 64),
    "not an object": header(b"[1,2]"),
    "deep": header(b'{"a":' + b"[" * 200_000),
    "offsets overlap": header(
        TENSOR + b',"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', body=b"1234"
    ),
    "offsets leave a hole": header(
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}', body=b"12345678"
    ),
    "offsets past the end": header(
        b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}', body=b"1234"
    ),
    "offsets backwards": header(
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}', body=b"1234"
    ),
    "negative": header(b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}', body=b"1234"),
    "shape overflows": header(
        b'{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,4]}}', body=b"1234"
    ),
    "shape lies": header(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}', body=b"1234"),
    "unknown type": header(
        b'{"a":{"dtype":"PICKLE","shape":[1],"data_offsets":[0,4]}}', body=b"1234"
    ),
    "twice the same name": header(
        TENSOR + b',"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}', body=b"12345678"
    ),
}


SHAPES = ("negative", "shape overflows", "shape lies", "unknown type", "twice the same name")
"""What only who loads tensors looks at: the warden asks whether the file is whole."""


@pytest.mark.parametrize("attack", HEADERS)
def test_no_header_of_weights_is_believed(folder: Path, attack: str) -> None:
    (folder / "model.safetensors").write_bytes(HEADERS[attack])
    with pytest.raises(EngineError):
        load(folder)


@pytest.mark.parametrize("attack", HEADERS)
def test_no_checkpoint_with_such_a_header_is_taken(tmp_path: Path, attack: str) -> None:
    """Neither as a promised artifact by the warden, nor for resuming by the engine."""
    folder = tmp_path / "checkpoints" / "step-000000002"
    checkpoints.save(folder, {"model": {"a": torch.ones(3)}}, {"step": 2})
    assert checkpoints.find_problem(folder) == ""
    weights = folder / "model.safetensors"
    weights.write_bytes(HEADERS[attack])
    assert "not the file that was saved" in checkpoints.find_problem(folder)
    promised = messages.Artifact(
        t=0, path=str(weights.relative_to(tmp_path)), size=weights.stat().st_size, sha256="0" * 64
    )
    if attack not in SHAPES:
        assert exit_cause.find_artifact_problems([promised], tmp_path)
    with pytest.raises((ValueError, SafetensorError, OSError)):
        checkpoints.load(folder, torch.device("cpu"))


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "pipe", "link", "a/b"])
def test_a_checkpoint_names_no_file_outside_and_never_blocks(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "step-000000001"
    checkpoints.save(folder, {"model": {"a": torch.ones(3)}}, {"step": 1})
    whole = (folder / "model.safetensors").read_bytes()
    (tmp_path / "outside.safetensors").write_bytes(whole)
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to(tmp_path / "outside.safetensors")
    state = json.loads((folder / "state.json").read_text())
    facts = state["files"].pop("model.safetensors")
    state["files"] = {name: {**facts, "size": len(whole)}}
    (folder / "state.json").write_text(json.dumps(state))
    assert checkpoints.find_problem(folder)
    with pytest.raises(ValueError, match="is not the file"):
        checkpoints.load(folder, torch.device("cpu"))

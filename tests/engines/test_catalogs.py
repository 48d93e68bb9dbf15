"""Engines and models by name: light to load, strict about mistakes, clear about remedies."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from datasets_mm.strict_toml import TomlError
from engines import catalog, model_catalog
from engines.protocol import RunSpec

HEAVY = {"torch", "transformers", "numpy", "pyarrow", "PIL", "pandas", "safetensors", "tokenizers"}


def test_declaring_engines_and_models_loads_nothing_heavy():
    code = (
        "import sys, json\n"
        "from engines import catalog, model_catalog as models\n"
        "for name in catalog.names(): catalog.load(name).Params.model_json_schema()\n"
        "for name in models.names(): models.find_problem(models.load(name))\n"
        "print(json.dumps(sorted(m for m in sys.modules if '.' not in m)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert HEAVY.isdisjoint(json.loads(done.stdout))


@pytest.mark.parametrize("name", catalog.names())
def test_every_engine_declares_itself_completely(name):
    engine = catalog.load(name)
    assert engine.SUMMARY
    assert set(engine.TASKS) <= set(RunSpec.model_fields["task"].annotation.__args__)
    assert issubclass(engine.Params, BaseModel)
    assert engine.Params.model_config["extra"] == "forbid"
    for field, info in engine.Params.model_fields.items():
        assert info.description, field
    assert engine.Params()  # every setting has a default


def test_an_unknown_engine_names_the_nearest():
    with pytest.raises(catalog.UnknownEngineError, match="did you mean 'retrieval'"):
        catalog.load("retreival")


@pytest.mark.parametrize("name", model_catalog.names())
def test_settings_of_an_entry_are_settings_of_its_engines(name):
    entry = model_catalog.load(name)
    for engine in entry.engines:
        catalog.load(engine).Params.model_validate(dict(entry.settings))


def test_a_model_of_its_own_code_is_listed_and_refused():
    entry = model_catalog.load("jina-clip-v2")
    assert "Python code of its own" in model_catalog.find_problem(entry)


def test_names_can_be_asked_for_an_engine():
    assert "clip-nano" in model_catalog.names("retrieval")
    assert "clip-nano" not in model_catalog.names("captioning")


def test_an_unknown_model_names_the_nearest():
    with pytest.raises(LookupError, match="did you mean 'clip-nano'"):
        model_catalog.load("clip-nao")
    with pytest.raises(LookupError, match="did you mean 'hub:openai/clip-vit-base-patch32'"):
        model_catalog.load("openai/clip-vit-base-patch32")
    with pytest.raises(LookupError, match=f"did you mean 'path:{Path.cwd()}/models/x'"):
        model_catalog.load("./models/x")


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CONFIG", str(tmp_path))
    (tmp_path / "models").mkdir()

    def write(name: str, text: str) -> None:
        (tmp_path / "models" / f"{name}.toml").write_text(text)

    return write


def test_own_entries_are_found(own):
    own("mine", 'schema = 1\nname = "mine"\nfamily = "clip"\npath = "/tmp/x"\n')
    assert model_catalog.load("mine").path == "/tmp/x"


def test_a_clash_is_an_error_that_names_the_file(own):
    own("mine", 'schema = 1\nname = "clip-nano"\nfamily = "clip"\n')
    with pytest.raises(ValueError, match=r"mine\.toml: a model 'clip-nano' exists already"):
        model_catalog.names()


def test_a_typo_in_an_entry_names_the_key(own):
    own("mine", 'schema = 1\nname = "mine"\nfamily = "clip"\nrevison = "x"\n')
    with pytest.raises(TomlError, match="unknown key 'revison'; did you mean 'revision'"):
        model_catalog.load("mine")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    repo = tmp_path / "models--wkcn--TinyCLIP-ViT-61M-32-Text-29M-LAION400M"

    def snapshot(commit: str, *files: str) -> None:
        folder = repo / "snapshots" / commit
        folder.mkdir(parents=True)
        (repo / "refs").mkdir()
        (repo / "refs" / "main").write_text(commit)
        for name in files:
            (folder / name).write_text("{}")

    return snapshot


def test_weights_that_were_never_fetched_are_told_before_the_run(hub):
    sentence = model_catalog.find_problem(model_catalog.load("tinyclip-61m"))
    assert "hf download wkcn/TinyCLIP" in sentence
    assert "path:" in sentence


def test_cached_weights_are_found_with_their_commit(hub):
    hub("abc123", *model_catalog.NEEDED)
    entry = model_catalog.load("tinyclip-61m")
    assert model_catalog.find_problem(entry) is None
    assert model_catalog.cached_revision(entry) == "abc123"
    assert model_catalog.weights_folder(entry).name == "abc123"


def test_an_incomplete_snapshot_names_what_is_missing(hub):
    hub("abc123", "config.json", "tokenizer.json")
    assert "lacks model.safetensors" in model_catalog.find_problem(
        model_catalog.load("tinyclip-61m")
    )


def test_a_missing_package_names_the_remedy():
    entry = model_catalog.load("effnet-minilm").model_copy(
        update={"packages": ("no_such_package_here",)}
    )
    assert (
        "`no_such_package_here` is missing; install the `demo` extra"
        in model_catalog.find_problem(entry)
    )


def test_folders_by_path(tmp_path):
    with pytest.raises(LookupError, match="is not absolute"):
        model_catalog.load("path:here")
    with pytest.raises(LookupError, match="cannot be read"):
        model_catalog.load(f"path:{tmp_path}")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(LookupError, match="'bert' is not supported"):
        model_catalog.load(f"path:{tmp_path}")
    (tmp_path / "config.json").write_text(
        '{"model_type": "clip", "vision_config": {"image_size": 96}}'
    )
    entry = model_catalog.load(f"path:{tmp_path}")
    assert entry.settings["image_size"] == 96
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_text("")
    assert "only pickled weights, which are never loaded" in model_catalog.find_problem(entry)

"""Cluster settings of a person, and the command's options above them."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasets_mm.strict_toml import TomlError
from workbench.slurm import settings
from workbench.slurm.settings import ClusterSettings


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WORKBENCH_CONFIG", str(tmp_path))
    (tmp_path / "clusters").mkdir()
    return tmp_path / "clusters"


def test_without_a_name_it_is_the_default_or_none(folder: Path) -> None:
    assert settings.load_cluster(None) == ("", ClusterSettings())
    (folder / "default.toml").write_text('time = "1:00:00"\nsbatch = ["--comment=pytorch"]\n')
    name, cluster = settings.load_cluster(None)
    assert (name, cluster.time, cluster.sbatch) == ("default", "1:00:00", ("--comment=pytorch",))


def test_a_wrong_name_or_key_has_a_remedy(folder: Path) -> None:
    (folder / "neuron.toml").write_text('tyme = "1"\n')
    with pytest.raises(TomlError, match="do you mean 'neuron'"):
        settings.load_cluster("neurom")
    with pytest.raises(TomlError, match="tyme"):
        settings.load_cluster("neuron")


def test_the_command_overrides_and_extends() -> None:
    cluster = ClusterSettings(
        time="48:00:00", array_parallel=8, sbatch=("--partition=a",), setup=("module load x",)
    )
    options = settings.merge_options(cluster, "1h", 2, ("--partition=b",))
    assert options == ("01:00:00", 2, 120, ("--partition=a", "--partition=b"), ("module load x",))
    assert settings.merge_options(cluster, None, None, ()).time == "48:00:00"


@pytest.mark.parametrize(
    ("time", "option", "sentence"),
    [
        ("2:00", "--mem=4G", "it would stop as soon as it starts"),
        ("later", "--mem=4G", "no time limit"),
        (None, "mem=4G", "no option of sbatch"),
        (None, "--array=1-5", "the script sets this itself"),
        (None, "-o x", "the script sets this itself"),
        (None, "--time=5", "with --time"),
        (None, "--comment=a\nrm -rf x", "no option of sbatch"),
    ],
)
def test_options_that_cannot_be(time: str | None, option: str, sentence: str) -> None:
    with pytest.raises(TomlError, match=sentence):
        settings.merge_options(ClusterSettings(), time, None, (option,))

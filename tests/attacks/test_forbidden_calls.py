"""The gate of `make lint`: no pickle, no eval, no shell, no code from a hub; it can fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GATE = ROOT / ".ci" / "forbidden.py"


def gate(*places: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(GATE), *map(str, places)], capture_output=True, text=True, timeout=180,
        check=False, cwd=ROOT,
    )  # fmt: skip


def test_the_project_passes() -> None:
    done = gate()
    assert done.returncode == 0, done.stdout


BAD = (
    "import pickle", "from pickle import loads", "import cPickle", "import dill", "import joblib",
    "import marshal", "import shelve", "import cloudpickle", "x = pickle.loads(b'')",
    "import torch\ntorch.load('x')", "from torch import load\nload('x')",
    "import numpy as np\nnp.load('x', allow_pickle=True)",
    "import pandas as pd\npd.read_pickle('x')",
    "import yaml\nyaml.load(x)", "import yaml\nyaml.unsafe_load(x)", "eval('1')", "exec('1')",
    "compile('1', 'x', 'eval')", "__import__(name)", "import os\nos.system('ls')",
    "import os\nos.popen('ls')", "import subprocess\nsubprocess.run('ls', shell=True)",
    "import subprocess\nsubprocess.getoutput('ls')",
    "import asyncio\nasyncio.create_subprocess_shell('')",
    "AutoModel.from_pretrained('x', trust_remote_code=True)", "f(trust_remote_code=flag)",
    "import multiprocessing\nmultiprocessing.connection.Client(1)",
    "import tempfile\ntempfile.mktemp()", "import xml.etree.ElementTree", "import socketserver",
    "import http.server", "import tarfile\ntarfile.open('x').extractall()",
)  # fmt: skip


@pytest.mark.parametrize("code", BAD, ids=lambda c: c[-40:])
def test_each_of_these_is_found(tmp_path: Path, code: str) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text(code + "\n")
    done = gate(bad)
    assert done.returncode == 1
    assert "bad.py:" in done.stdout


GOOD = (
    "model.eval()", "re.compile('x')", "import subprocess\nsubprocess.run(['ls'])",
    "torch.save({}, 'x')", "'pickle and eval( in a string'", "# exec(x) in a comment",
    "f(trust_remote_code=False)", "yaml.safe_load(x)", "def evaluate(): pass",
)  # fmt: skip


@pytest.mark.parametrize("code", GOOD)
def test_these_are_not(tmp_path: Path, code: str) -> None:
    good = tmp_path / "good.py"
    good.write_text(code + "\n")
    assert gate(good).returncode == 0


def test_an_exception_that_is_not_needed_any_more_is_told(tmp_path: Path) -> None:
    empty = tmp_path / "empty.py"
    empty.write_text("")
    assert "no longer needed" not in gate(empty).stdout, "only the whole project is asked for them"


def test_lint_runs_the_gate() -> None:
    assert ".ci/forbidden.py" in (ROOT / "Makefile").read_text()

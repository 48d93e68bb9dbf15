"""Secrets: a canary in everything that surrounds a run, and every byte that the tool writes."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engines import child
from results.text import secrets
from tests.fixtures.terminals import ROOT
from workbench.telemetry import environment

CANARY = "CanaryS3cret0f7e19"
URL = f"https://user:{CANARY}@hub.example/model"
PROBE = ["-e", "probe", "-d", "none", "-m", "none"]


def surroundings(here: Path) -> dict[str, str]:
    """An environment full of secrets, under names that tools really use."""
    names = (
        "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY",
        "OPENAI_API_KEY", "GITHUB_TOKEN", "DATABASE_URL", "MY_PASSWORD", "CANARY_SECRET",
        "WORKBENCH_TOKEN_OF_A_FRIEND", "PYTHON_KEYRING_PASSWORD", "NCCL_SECRET", "CUDA_API_KEY",
    )  # fmt: skip
    secrets = dict.fromkeys(names, CANARY) | {"HTTPS_PROXY": URL, "PIP_INDEX_URL": URL}
    return {
        **secrets,
        "PATH": "/usr/bin:/bin", "HOME": str(here), "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT),
        "WORKBENCH_CACHE": str(here / "cache"), "WORKBENCH_CONFIG": str(here / "config"),
        "WORKBENCH_LOCKS": str(here / "runtime"),
    }  # fmt: skip


def workbench(here: Path, *words: str, umask: int = 0o022) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "workbench", *words], cwd=here, env=surroundings(here),
        capture_output=True, timeout=120, check=False, umask=umask,
    )  # fmt: skip


def everything(here: Path) -> list[Path]:
    """All files that were written, whatever their names."""
    return [path for path in here.rglob("*") if path.is_file() and not path.is_symlink()]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A working folder that is a checkout whose remote holds a password."""
    config = tmp_path / ".git" / "config"
    config.parent.mkdir()
    config.write_text(f'[remote "origin"]\n\turl = {URL}\n')
    return tmp_path


def test_no_byte_that_the_tool_writes_holds_a_secret_of_its_surroundings(here: Path) -> None:
    """A run that completes, one that fails with a traceback, every command that shows them."""
    outputs = []
    short = ["--set", "steps=20", "--set", "warmup_steps=0", "--name", "good", "--headless"]
    failing = ["--set", "steps=1000000", "--name", "bad", "--headless"]
    outputs.append(workbench(here, "run", *PROBE, *short))
    assert outputs[0].returncode == 0, outputs[0].stderr
    with subprocess.Popen(
        [sys.executable, "-m", "workbench", "run", *PROBE, *failing], cwd=here,
        env=surroundings(here), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as child:  # fmt: skip
        engine = engine_below(child.pid)
        os.kill(engine, 11)  # SIGSEGV: the stacks of all threads go into engine.log
        out, err = child.communicate(timeout=180)
    outputs.append(subprocess.CompletedProcess([], child.returncode, out, err))
    shown = (
        ["ps", "--all"], ["results", "list", "--json"], ["results", "show", "good"],
        ["results", "show", "bad/"], ["report", "good", "--out", "bench_logs/report"],
        ["attach", "bad"], ["models"], ["data", "list"], ["doctor"], ["doctor", "--json"],
    )  # fmt: skip
    outputs += [workbench(here, *words) for words in shown]
    for output in outputs:
        assert CANARY.encode() not in output.stdout + output.stderr
    config = here / ".git" / "config"
    holding = [p for p in everything(here) if p != config and CANARY.encode() in p.read_bytes()]
    assert holding == []
    names = [str(path) for path in here.rglob("*")]
    assert not [name for name in names if CANARY in name]
    assert any(path.name == "engine.log" and path.stat().st_size for path in everything(here))
    assert_private(here)


def assert_private(here: Path) -> None:
    """Nobody else can read what a run leaves, under the usual umask 0022: 0700 and 0600."""
    open_to_others = [
        f"{stat.filemode(path.lstat().st_mode)} {path.relative_to(here)}"
        for place in ("bench_logs", "cache", "runtime")
        for path in [here / place, *(here / place).rglob("*")]
        if path.exists() and path.lstat().st_mode & 0o077
    ]
    assert open_to_others == []


def engine_below(pid: int) -> int:
    """The engine of a command's suite, once it works."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for process in Path("/proc").glob("[0-9]*"):
            try:
                line = (process / "cmdline").read_bytes()
                place = (process / "cwd").readlink()
            except OSError:
                continue
            if b"engines.child" in line and str(place) == str(Path(f"/proc/{pid}/cwd").readlink()):
                time.sleep(0.5)
                return int(process.name)
        time.sleep(0.05)
    raise AssertionError("no engine came to work")


@pytest.mark.parametrize(
    "words",
    [
        [*PROBE, "--set", f"data_root={URL}"],
        ["-e", "probe", "-d", "none", "-m", f"hub:{URL}"],
        [*PROBE, "--label", "hf_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789"],
        [*PROBE, "--set", f"note=Bearer {CANARY}{CANARY}"],
    ],
)
def test_a_secret_in_a_plan_is_refused_and_not_repeated(here: Path, words: list[str]) -> None:
    """What is recorded for good, and printed in reports, is no place for a password."""
    done = workbench(here, "run", *words, "--headless")
    assert done.returncode == 2
    said = (done.stdout + done.stderr).decode()
    assert "secret" in said
    assert CANARY not in said
    assert "hf_AbCdEf" not in said
    assert not (here / "bench_logs").exists()


def test_a_secret_in_a_plan_file_is_refused_and_not_repeated(here: Path) -> None:
    plan = here / "plan.toml"
    plan.write_text(
        f'engine = "probe"\nsubsets = ["none"]\nmodels = ["none"]\nlabel = "{URL}"\nnope = 1\n'
    )
    done = workbench(here, "run", str(plan), "--headless")
    assert done.returncode == 2
    assert CANARY.encode() not in done.stdout + done.stderr


def test_git_state_names_no_remote(tmp_path: Path) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (
        ["init", "-q"],
        ["remote", "add", "origin", URL],
        [*who, "commit", "-q", "--allow-empty", "-m", CANARY],
    ):
        subprocess.run(["git", *words], check=True, cwd=tmp_path, capture_output=True)
    assert CANARY not in str(environment.read_git_state(tmp_path))


def test_a_traceback_is_told_without_the_secret_in_its_message(capsys) -> None:
    told = child.describe_failure(RuntimeError(f"cannot fetch {URL}: 403"))
    assert "cannot fetch https://[secret]@hub.example/model: 403" in told.error
    assert "test_secrets" in told.traceback or "RuntimeError" in told.traceback
    for text in (told.error, told.traceback, capsys.readouterr().err):
        assert CANARY not in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (URL, "https://[secret]@hub.example/model"),
        ("hf_" + "a" * 30, "[secret]"),
        (f"x?token={CANARY}&a=1", "x?[secret]&a=1"),
        ("git@github.com:org/repo.git", "git@github.com:org/repo.git"),
        ("https://host/path:80@x", "https://host/path:80@x"),
        ("sk-learn-is-a-package", "sk-learn-is-a-package"),
        ("hf_transfer", "hf_transfer"),
        ("/data/M2KR/key=1", "/data/M2KR/key=1"),
    ],
)
def test_what_is_taken_for_a_secret(text: str, shown: str) -> None:
    assert secrets.mask_secrets(text) == shown

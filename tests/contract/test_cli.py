"""Commands as a person types them: one-sentence errors, exit code 2, nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.terminals import ROOT
from workbench.cli import main


def variables(tmp_path: Path) -> dict[str, str]:
    return {
        "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "WORKBENCH_CACHE": str(tmp_path / "cache"),
        "WORKBENCH_CONFIG": str(tmp_path / "config"), "LANG": "C.UTF-8",
        "WORKBENCH_LOCKS": str(tmp_path / "locks"),
    }  # fmt: skip


def workbench(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "workbench", *words], capture_output=True, text=True,
        cwd=tmp_path, env=variables(tmp_path), timeout=180, check=False,
    )  # fmt: skip


GOOD = ("-d", "emoji_train", "-m", "clip-nano")
WRONG = {
    "nothing to run": ["run"],
    "did you mean 'emoji_train'": ["run", "-d", "emoji_trian", "-m", "clip-nano"],
    "did you mean 'clip-nano'": ["run", "-d", "emoji_train", "-m", "clip-nan0"],
    "did you mean 'retrieval'": ["run", "-e", "retreival", *GOOD],
    "did you mean 'epochs'": ["run", *GOOD, "--set", "epoch=3"],
    "greater than": ["run", *GOOD, "--set", "batch=-1"],
    "is not KEY=VALUE": ["run", *GOOD, "--set", "epochs"],
    "no preset 'dmo'; did you mean 'demo'": ["run", "--preset", "dmo"],
    "cannot be read (No such file": ["run", "no-such-plan.toml"],
    "give a plan file or --preset": ["run", "x.toml", "--preset", "demo"],
    "config.json cannot be read": ["run", "-d", "emoji_train", "-m", "path:/nowhere"],
    "--set data_root": ["run", "-d", "oven_train", "-m", "clip-nano"],
    "'cost_probe' = 0 is wrong: input should be greater than or equal to 1": [
        "run",
        *GOOD,
        "--cost-probe",
        "0",
    ],
    "'cost_probe' = -3 is wrong": ["run", *GOOD, "--cost-probe", "-3"],
    "should be a valid integer": ["run", *GOOD, "--cost-probe", "1.5"],
    "'max_uncertainty' = 'soon' is wrong: a share between 0 and 1 is wanted": [
        "run",
        *GOOD,
        "--cost-probe",
        "--max-uncertainty",
        "soon",
    ],
    "'max_uncertainty' = '200%' is wrong": [
        "run",
        *GOOD,
        "--cost-probe",
        "--max-uncertainty",
        "200%",
    ],
    "'max_uncertainty' = '2' is wrong": ["run", *GOOD, "--cost-probe", "--max-uncertainty", "2"],
    "'max_uncertainty' = 'nan' is wrong": [
        "run",
        *GOOD,
        "--cost-probe",
        "--max-uncertainty",
        "nan",
    ],
    "only a cost probe stops early": ["run", *GOOD, "--max-uncertainty", "2%"],
    "task 'evaluate' trains nothing": ["run", *GOOD, "--cost-probe", "--task", "evaluate"],
    "--anyway and --force are the same; leave out --anyway": [
        "run",
        *GOOD,
        "--anyway",
        "--force",
    ],
    "--set: 'workers' and 'num_workers' are the same; leave out 'workers'": [
        "run",
        *GOOD,
        "--set",
        "num_workers=1",
        "--set",
        "workers=2",
    ],
    "this engine trains nothing": ["run", "-e", "probe", *GOOD, "--cost-probe"],
    "no audit rule 'one-sed'; did you mean 'one-seed'": ["run", *GOOD, "--refuse-on", "one-sed"],
    "refused by refuse_on: audit, note one-seed": [
        "run",
        *GOOD,
        "-m",
        "effnet-minilm",
        "--refuse-on",
        "one-seed",
    ],
    "no suites yet": ["report"],
    "nothing to search: give --range": ["search"],
    "metric NAME, or a plan with [search]": ["search", *GOOD, "--metric", "recall@1"],
    "nor KEY=[VALUES]": ["search", *GOOD, "--metric", "m", "--range", "lr=1..fast"],
    "unknown setting 'lrr'; did you mean 'lr'": [
        "search",
        *GOOD,
        "--metric",
        "m",
        "--range",
        "lrr=1e-5..1e-3:log",
    ],
    "search.ranges.lr.high: 'lr' = 7 is wrong": [
        "search",
        *GOOD,
        "--metric",
        "m",
        "--range",
        "lr=0.1..7",
    ],
    "the ranges allow only 2; ask for 2": [
        "search",
        *GOOD,
        "--metric",
        "m",
        "--range",
        "batch=[8,16]",
    ],
    "search: 2 seeds": [
        "search",
        *GOOD,
        "--metric",
        "m",
        "--range",
        "lr=1e-5..1e-3",
        "--seed",
        "1",
        "--seed",
        "2",
    ],
    "no run": ["results", "show", "nothing"],
}


def test_earlier_words_work_and_are_told_once(tmp_path: Path) -> None:
    words = ["--set", "workers=0", "--set", "accumulation=2", "--anyway", "--until=±2%"]
    done = workbench(tmp_path, "run", *GOOD, "--cpu", "--cost-probe", *words, "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    spec = json.loads(done.stdout)
    assert spec["params"]["num_workers"] == 0
    assert spec["params"]["gradient_accumulation_steps"] == 2
    assert spec["probe"]["max_uncertainty"] == 0.02
    lines = [line for line in done.stderr.splitlines() if "is now called" in line]
    assert lines == [
        f"workbench: '{earlier}' is now called '{name}'; the earlier name works for one more "
        "release"
        for earlier, name in (
            ("--anyway", "--force"), ("--until", "--max-uncertainty"), ("workers", "num_workers"),
            ("accumulation", "gradient_accumulation_steps"),
        )
    ]  # fmt: skip


@pytest.mark.parametrize(("said", "words"), WRONG.items(), ids=WRONG)
def test_bad_input_is_one_sentence_and_exit_code_2(
    tmp_path: Path, said: str, words: list[str], monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """In this process, but for the first: forty interpreters would take fifteen seconds of CPU."""
    if words == WRONG["nothing to run"]:
        done = workbench(tmp_path, *words)
    else:
        monkeypatch.chdir(tmp_path)
        for name, value in variables(tmp_path).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["workbench", *words])
        with pytest.raises(SystemExit) as ending:
            main.main()
        done = subprocess.CompletedProcess(words, int(ending.value.code or 0), *capfd.readouterr())
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "bench_logs").exists()
    assert not (tmp_path / "cache").exists()


def test_an_audit_names_faults_as_json_and_exits_with_1(tmp_path: Path) -> None:
    done = workbench(tmp_path, "audit", "-p", "siglip-study", "--cpu", "--json")
    faults = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert "judge-context" in [fault["code"] for fault in faults]
    assert all(fault["remedy"]["ko"] for fault in faults)
    shown = workbench(tmp_path, "audit", *GOOD, "--cpu", "--all", "--lang", "ko")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "발생 불가" in shown.stdout


def test_imported_results_are_audited_though_they_have_no_folder(tmp_path: Path) -> None:
    assert workbench(tmp_path, "results", "import", "siglip-study").returncode == 0
    for name, codes in (
        ("published-siglip-study", {"padding", "mode-collapse", "final-not-best", "one-seed"}),
        ("E5-v3", {"padding", "reported-split", "final-not-best"}),
    ):
        done = workbench(tmp_path, "audit", name, "--json")
        assert done.returncode == 1, done.stderr
        assert codes <= {json.loads(line)["code"] for line in done.stdout.splitlines()}
    report = workbench(tmp_path, "report", "published-siglip-study", "--kind", "audit")
    assert "[final-not-best]" in report.stdout


def test_all_errors_of_a_plan_come_at_once(tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text("subsets = []\nmodel = 'x'\nrepeats = 0\n[settings]\n")
    done = workbench(tmp_path, "run", str(plan))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 4  # subsets, models missing, model unknown, repeats
    assert "unknown key 'model'; did you mean 'models'?" in done.stderr


@pytest.mark.parametrize("root", ["file", "/proc"])
def test_a_log_root_that_cannot_be_written(tmp_path: Path, root: str) -> None:
    (tmp_path / "file").write_text("")
    words = ["-e", "probe", "-d", "none", "-m", "none"]
    done = workbench(tmp_path, "run", *words, "--log-root", root)
    assert done.returncode == 2
    assert "--log-root" in done.stderr


def test_the_same_plan_from_a_file_and_from_flags(tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(
        'engine = "probe"\nsubsets = ["none"]\nmodels = ["none"]\nseeds = [1, 2]\n'
        "[settings]\nsteps = 3\n"
    )
    flags = ["-e", "probe", "-d", "none", "-m", "none", "--seed", "1", "--seed", "2"]
    one = workbench(tmp_path, "run", str(plan), "--dry-run", "--json")
    two = workbench(tmp_path, "run", *flags, "--set", "steps=3", "--dry-run", "--json")
    assert one.returncode == two.returncode == 0
    assert one.stdout == two.stdout
    assert one.stdout.count("\n") == 2


def test_run_and_search_take_the_same_plan(tmp_path: Path) -> None:
    words = [*GOOD, "--metric", "recall@10", "--range", "lr=1e-5..1e-3:log", "--trials", "7"]
    shown = workbench(tmp_path, "search", *words, "--dry-run")
    assert (shown.returncode, shown.stdout.splitlines()) == (0, [
        "7 trials of retrieval emoji_train clip-nano",
        "for the best recall@10, by tpe, pruned by median",
        "lr: 1e-05 … 0.001 (log)",
    ])  # fmt: skip
    (tmp_path / "plan.toml").write_text(
        'subsets = "emoji_train"\nmodels = "clip-nano"\n[search]\nmetric = "recall@10"\n'
        "trials = 7\n[search.ranges]\nlr = { low = 1e-5, high = 1e-3, log = true }\n"
    )
    assert workbench(tmp_path, "search", "plan.toml", "--dry-run").stdout == shown.stdout
    changed = workbench(tmp_path, "search", "plan.toml", "--trials", "3", "--dry-run")
    assert changed.stdout.splitlines()[0].startswith("3 trials")
    assert "lr: 1e-05" in changed.stdout
    assert workbench(tmp_path, "run", "plan.toml", "--dry-run").returncode == 0
    assert not (tmp_path / "bench_logs").exists()


def test_presets_are_listed(tmp_path: Path) -> None:
    done = workbench(tmp_path, "presets")
    assert {line.split()[0] for line in done.stdout.splitlines()} >= {"demo", "weekly-m2kr"}
    assert "not measured here: 6:00:00 (T4), accuracy 0.79–0.82, 3,887 rows" in done.stdout
    assert done.stdout.count("published, not measured here") == 7
    assert "public score 0.805: no preset, as nothing but the score was published" in done.stdout


@pytest.mark.parametrize("words", [["presets"], ["data", "list"], ["models", "--json"], ["--help"]])
def test_a_reader_that_has_enough_is_no_failure(tmp_path: Path, words: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-u", "-m", "workbench", *words], stdout=writing, stderr=subprocess.PIPE,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}, timeout=180, text=True, check=False,
    )  # fmt: skip
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("words", [["presets"], ["data", "list"], ["models", "--json"]])
def test_a_full_disk_under_the_output_is_a_sentence(tmp_path: Path, words: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "workbench", *words], stdout=full, stderr=subprocess.PIPE,
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}, timeout=180, text=True,
            check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == (
        "workbench: output cannot be written (No space left on device); free some space\n"
    )


def test_a_full_disk_under_a_file_names_the_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/logs/results.jsonl")

    monkeypatch.setattr(main, "_run_app", fail)
    monkeypatch.setattr(main, "_discard_stdout", lambda: None)
    with pytest.raises(SystemExit) as ending:
        main.main()
    assert ending.value.code == 1
    assert capsys.readouterr().err == (
        "workbench: /logs/results.jsonl cannot be written (No space left on device); "
        "free some space, or file entries\n"
    )


def test_a_current_folder_that_is_gone_is_a_sentence(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f'cd "{gone}" && rmdir "{gone}" && exec {sys.executable} -m workbench ps'
    done = subprocess.run(
        ["/bin/sh", "-c", script], capture_output=True, text=True, timeout=180, check=False,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 2
    assert "the current folder cannot be used" in done.stderr
    assert "Traceback" not in done.stderr

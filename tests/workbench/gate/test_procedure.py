"""The gate's procedure with a Python that only pretends to run: order, noise, confirmation."""

import json
import sys
from pathlib import Path

import pytest

from results.comparison.gate import Verdict
from tests.results.conftest import record, untimed
from workbench.gate import measure, noise, procedure
from workbench.gate.measure import GateSide
from workbench.gate.procedure import GateRule
from workbench.suites.suite import SuiteError

STAND_IN = """#!{python}
import json, pathlib, sys
words = sys.argv[3:]
option = dict(zip(words, words[1:]))
if "--dry-run" in words:
    print("\\n".join({run_ids!r}))
    sys.exit({dry_run})
root = pathlib.Path(option["--log-root"])
calls = root / "calls"
number = len(calls.read_text()) if calls.exists() else 0
calls.open("a").write(option["--name"][-1])
record = json.loads({record!r})
record["identity"]["suite"] = f"suite-{{number:03d}}"
times = {seconds!r}
record["timing"]["step_median"]["value"] = times[number % len(times)]
with (root / "results.jsonl").open("a") as file:
    file.write(json.dumps(record) + "\\n")
print("ran", option["--name"])
sys.exit({status})
"""


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def side(tmp_path):
    """Builds a side whose Python gives these step times, one a process, in turn."""

    def build(name, *seconds, run_ids=("01-run",), status=0, cause="completed", dry_run=0):
        made = record("01-run", timing=untimed(step_median={"value": 1.0, "reason": ""}))
        data = json.loads(made.model_dump_json())
        data["exit"]["cause"] = cause
        path = tmp_path / f"python-{name}"
        path.write_text(STAND_IN.format(
            python=sys.executable, run_ids=run_ids, record=json.dumps(data),
            seconds=seconds or (0.1,), status=status, dry_run=dry_run,
        ))  # fmt: skip
        path.chmod(0o755)
        return GateSide(name, (f"{name}.toml",), str(path))

    return build


def calls_of(tmp_path: Path) -> str:
    (folder,) = (tmp_path / "logs" / procedure.FOLDER).iterdir()
    return (folder / "calls").read_text()


def run_gate(tmp_path, a, b, threshold=0.02):
    said = []
    rule = GateRule(("step",), threshold)
    (check,) = procedure.check_measured(a, b, 5, rule, tmp_path / "logs", said.append)
    return check, said


def test_sides_take_turns_in_fresh_processes(side, tmp_path):
    check, said = run_gate(tmp_path, side("a", 0.1, 0.101), side("b", 0.1, 0.1005))
    assert (check.verdict, check.n) == (Verdict.PASS, 5)
    assert calls_of(tmp_path) == "abbaabbaab"
    assert said[0] == "pair 1 of 5: A, a"
    assert len(said) == 10


def test_an_alarm_is_held_to_the_noise_and_measured_again(side, tmp_path):
    a, b = side("a", 0.1, 0.1001), side("b", 0.11, 0.1101)
    check, said = run_gate(tmp_path, a, b)
    assert check.verdict is Verdict.WORSE
    # five pairs, five of equal sides for the noise, five to confirm
    assert calls_of(tmp_path) == "abbaabbaab" * 3
    assert "no noise is kept" in " ".join(said)
    assert [line.count("B, a") for line in said].count(1) == 5


def test_equal_sides_measure_the_noise(side, tmp_path):
    same = side("a", 0.1, 0.13, 0.09)
    _, said = run_gate(tmp_path, same, same)
    assert "kept as this machine's noise" in said[-1]
    (kept,) = (tmp_path / "cache" / "gate").iterdir()
    assert len(noise.read_ratios(kept)["step"]) == 5
    kept.write_text("torn {")
    assert noise.read_ratios(kept) == {}


def test_what_cannot_be_measured_is_one_sentence(side, tmp_path):
    good = side("a")
    for bad, message in (
        (side("b", run_ids=("01-x", "02-y")), r"b is 2 runs \(01-x, 02-y\); a gate needs"),
        (side("c", dry_run=2), "c does not start: exit code 2"),
        (side("d", status=1, cause="oom-cuda"), "d did not complete .oom-cuda.*b.log"),
        (side("e", status=1), "e did not complete"),
    ):
        with pytest.raises((SuiteError, measure.IncompleteRunError), match=message):
            run_gate(tmp_path, good, bad)


def test_a_name_is_a_plan_a_preset_or_a_run(tmp_path):
    assert measure.resolve_side("demo", tmp_path, "python").arguments == ("--preset", "demo")
    side = measure.resolve_side(str(tmp_path / "x.toml"), tmp_path, "python", [("--set", "lr=1")])
    assert side.arguments == (str(tmp_path / "x.toml"), "--set", "lr=1")
    with pytest.raises(SuiteError, match="no completed run 'nothing'"):
        measure.resolve_side("nothing", tmp_path, "python")
    run = record("01-run", identity={"suite": "gone", "seed": 7})
    (tmp_path / "results.jsonl").write_text(run.model_dump_json() + "\n")
    with pytest.raises(SuiteError, match=r"gone/plan.toml is missing"):
        measure.resolve_side("01-run", tmp_path, "python")
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / "plan.toml").touch()
    side = measure.resolve_side("01-run", tmp_path, "python")
    assert side.arguments[1:] == ("-e", "retrieval", "-d", "oven_train", "-m", "tinyclip-61m",
                                  "--seed", "7")  # fmt: skip

"""The sbatch script: arrays, times, dependencies, options of a person, odd paths."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from workbench.slurm import script
from workbench.slurm.script import ScriptOptions, ScriptPaths, TaskGroup


@pytest.mark.parametrize(
    ("text", "written", "seconds"),
    [
        ("24:00:00", "24:00:00", 86_400),
        ("2-00:00:00", "2-00:00:00", 172_800),
        ("1-12", "1-12", 129_600),
        ("90", "90", 5400),
        ("5:30", "5:30", 330),
        ("11h30m", "11:30:00", 41_400),
        ("90m", "01:30:00", 5400),
    ],
)
def test_times_as_sbatch_and_as_we_write_them(text: str, written: str, seconds: int) -> None:
    assert script.parse_time(text) == (written, seconds)


@pytest.mark.parametrize("text", ["", "soon", "0", "1:2:3:4", "-5", "1d", "24:00:00; rm x"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="no time limit"):
        script.parse_time(text)


@pytest.mark.parametrize(
    ("numbers", "parallel", "text"),
    [([1, 2, 3], 0, "1-3"), ([5, 1, 2, 7, 8], 2, "1-2,5,7-8%2"), ([4], 0, "4")],
)
def test_array_of_numbers(numbers: list[int], parallel: int, text: str) -> None:
    assert script.format_array(numbers, parallel) == text


def test_runs_with_the_same_needs_are_one_array_after_those_that_they_need() -> None:
    groups = script.group_tasks([[], [], [1, 2], [], [1, 2], [3]])
    assert groups == [
        TaskGroup((1, 2, 4)), TaskGroup((3, 5), (1, 2)), TaskGroup((6,), (3,)),
    ]  # fmt: skip
    jobs = {1: "7_1", 2: "7_2", 4: "7_4"}
    assert script.group_options(groups[1], 4, jobs) == [
        "--array=3,5%4", "--dependency=afterany:7_1:7_2",
    ]  # fmt: skip
    assert script.group_options(groups[2], 0, {}) == ["--array=6"], "what has completed is no need"


def test_the_script_of_a_suite_with_an_odd_path() -> None:
    suite = Path("/data/my logs/50% done/20261130-week-1a2b")
    options = ScriptOptions(
        "24:00:00", 4, 90, ("--comment=pytorch", "--gres=gpu:1"), ("module load cuda/12.6",)
    )
    paths = ScriptPaths(Path("/opt/a b/python"), suite, {"WORKBENCH_CACHE": "/scratch/it's"})
    text = script.write_script(paths, [TaskGroup((1, 2, 3)), TaskGroup((4,), (1,))], options, "x")
    directives = [line for line in text.splitlines() if line.startswith("#SBATCH ")]
    assert directives == [
        "#SBATCH --job-name=20261130-week-1a2b",
        "#SBATCH --array=1-3%4",
        "#SBATCH --time=24:00:00",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        "#SBATCH --signal=B:USR2@90",
        '#SBATCH --output="/data/my logs/50%% done/20261130-week-1a2b/slurm/%A_%a.log"',
        "#SBATCH --comment=pytorch",
        "#SBATCH --gres=gpu:1",
    ]
    assert "#   sbatch --array=4%4 --dependency=afterany:JOB_1 " in text
    checked = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=True)
    assert not checked.stderr
    lines = text.splitlines()
    assert shlex.split(lines[-1])[1:] == [
        "/opt/a b/python", "-P", "-m", "workbench", "run-one", str(suite), "$SLURM_ARRAY_TASK_ID",
    ]  # fmt: skip
    assert lines.index("module load cuda/12.6") < lines.index(
        "trap '' USR2  # until Python handles it"
    )
    assert shlex.split(next(line for line in lines if "CACHE" in line)) == [
        "export", "WORKBENCH_CACHE=/scratch/it's",
    ]  # fmt: skip


def test_runs_on_several_nodes_are_an_array_of_their_own_and_all_arrays_say_their_nodes() -> None:
    groups = script.group_tasks([[], [], [1]], [2, 1, 1])
    assert groups == [TaskGroup((1,), (), 2), TaskGroup((2,), (), 1), TaskGroup((3,), (1,), 1)]
    assert script.group_options(groups[0]) == ["--array=1", "--nodes=2", "--ntasks-per-node=1"]
    assert "--nodes=1" in script.group_options(groups[2], 0, {1: "7_1"})
    assert script.group_tasks([[], []], [1, 1]) == [TaskGroup((1, 2))]
    text = script.write_script(ScriptPaths(Path("p"), Path("/s")), groups, ScriptOptions(), "x")
    assert "#SBATCH --array=1\n#SBATCH --nodes=2\n#SBATCH --ntasks-per-node=1\n" in text

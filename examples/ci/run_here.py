"""The steps of action.yml and gitlab.yml, run here one after the other as the services would.

python examples/ci/run_here.py            in a temporary folder; exit code 1 if anything is off
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent


def run_script(script: str, folder: Path, variables: dict[str, str]) -> int:
    """Exit code of a step's script in bash with the services' own switches."""
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, **variables}
    return subprocess.run(command, cwd=folder, env=environment, check=False).returncode


def run_action(folder: Path, chosen: dict[str, str]) -> dict[str, int]:
    """Exit code of each step of the composite action that ran."""
    action: dict[str, Any] = yaml.safe_load((HERE / "action.yml").read_text("utf-8"))
    inputs = {name: str(entry.get("default", "")) for name, entry in action["inputs"].items()}
    inputs |= chosen
    outputs, summary = folder / "output.txt", folder / "summary.md"
    variables = {"GITHUB_OUTPUT": str(outputs), "GITHUB_STEP_SUMMARY": str(summary)}
    codes: dict[str, int] = {}
    for step in action["runs"]["steps"]:
        always = step.get("if") == "always()"
        if step.get("if") == "inputs.baseline != ''" and not inputs["baseline"]:
            continue
        if any(codes.values()) and not always:
            continue
        if "uses" in step:  # uploads: the files have to be there
            paths = re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda m: inputs[m[1]], step["with"]["path"])
            missing = [p for p in paths.split() if p != "gate.xml" and not list(folder.glob(p))]
            codes[step["name"]] = len(missing)
            continue
        script = re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda m: inputs[m[1]], step["run"])
        codes[step["name"]] = run_script(script, folder, variables)
    return codes


def run_gitlab(folder: Path, plan: str) -> list[int]:
    """Exit codes of the job's script and of what comes after it."""
    job: dict[str, Any] = yaml.safe_load((HERE / "gitlab.yml").read_text("utf-8"))["workbench"]
    variables = {**job["variables"], "PLAN": plan}
    code = run_script("\n".join(job["script"]), folder, variables)
    return [code, run_script("\n".join(job["after_script"]), folder, variables)]


def main() -> int:
    """Run a good and a wrong plan through both; 1 if a code is not what it should be."""
    plan = HERE / "plan.toml"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wrong = folder / "wrong.toml"
        wrong.write_text(plan.read_text("utf-8").replace("steps = 40", "stepps = 40"), "utf-8")
        good = run_action(folder, {"plan": str(plan)})
        results = {
            "action": good == dict.fromkeys(("Plan", "Run", "Summary", "Artifacts"), 0),
            "summary": "# " in (folder / "summary.md").read_text("utf-8"),
            "output": (folder / "output.txt").read_text("utf-8") == "exit-code=0\n",
            "action, wrong plan": run_action(folder, {"plan": str(wrong)}).get("Plan") == 2,
            "gitlab": run_gitlab(folder, str(plan)) == [0, 0],
            "gitlab, wrong plan": run_gitlab(folder, str(wrong))[0] == 2,
        }  # fmt: skip
    for case, right in results.items():
        print(f"{'ok    ' if right else 'FAILED'}  {case}")
    return 0 if all(results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())

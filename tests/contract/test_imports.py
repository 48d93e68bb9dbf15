"""What real processes load. The static contracts cannot see a dynamic import; this can."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {
    "torch", "torchvision", "transformers", "tokenizers", "peft", "bitsandbytes", "numpy",
    "pandas", "pyarrow", "PIL", "matplotlib", "textual", "pynvml", "scipy",
}  # fmt: skip


def loaded_by(code: str) -> set[str]:
    script = f"import sys, json\n{code}\nprint(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    modules = json.loads(done.stderr.splitlines()[-1])
    return {name.partition(".")[0] for name in modules}


LIGHT = {
    "import workbench.cli.main": {"pydantic"},
    "import workbench.suites.state, workbench.suites.suite, workbench.suites.record": {
        "rich",
        "typer",
    },
    "import workbench.supervisor.warden": {"rich", "typer"},
    "import workbench.headless.follow": set(),
    "import engines.protocol, engines.catalog, engines.model_catalog": {"rich", "typer"},
    "from engines import catalog\nfor n in catalog.names(): catalog.load(n)": {"rich", "typer"},
    "import datasets_mm.catalog, datasets_mm.recipes.recipe": {"rich", "typer"},
    "from workbench.data_profile import profile_process, tables": {"rich", "typer"},
    "import workbench.audit.audit": {"rich", "typer"},
    "import datasets_mm.profile.check": {"rich", "typer"},
    "import results.records.schema, results.records.store": {"rich", "typer"},
}
"""What is imported -> what else it must not load beside all that is heavy."""


@pytest.mark.parametrize("code", LIGHT, ids=lambda code: code.replace("\n", "; ")[:60])
def test_light_doors_stay_light(code: str) -> None:
    assert loaded_by(code) & (HEAVY | LIGHT[code]) == set()


def test_help_loads_neither_pydantic_nor_rich() -> None:
    code = (
        "import sys; sys.argv = ['workbench', '--help']\n"
        "import workbench.cli.main\n"
        "try: workbench.cli.main.main()\nexcept SystemExit: pass"
    )
    assert loaded_by(code) & (HEAVY | {"pydantic", "rich"}) == set()


def test_the_screen_loads_textual_and_nothing_heavier() -> None:
    assert loaded_by("import workbench.tui.app") & (HEAVY - {"textual"}) == set()

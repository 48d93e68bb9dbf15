"""`workbench init`: a plan from flags or answers, that loads, expands and has comments."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engines import catalog
from workbench.cli import init, main, start
from workbench.planning import plan, plan_choices, plan_schema, plan_template


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in; the memory estimate, which starts a process, is left out."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORKBENCH_CONFIG", str(tmp_path / "config"))
    monkeypatch.setattr(start, "check_memory", lambda specs, device, *, force: (specs, []))
    return tmp_path


def run_init(*words: str, answers: str = "") -> tuple[int, str]:
    done = CliRunner().invoke(main.app, ["init", *words], input=answers)
    problems = getattr(done.exception, "problems", [])
    return done.exit_code, "\n".join([done.output, *problems])


def test_flags_give_a_commented_plan_and_its_schema(folder: Path) -> None:
    code, output = run_init("--compare", "lr=1e-4,3e-4", "--gpu", "A10G", "--set", "epochs=2")
    assert (code, "2 runs, checked" in output) == (0, True), output
    text = (folder / "plan.toml").read_text()
    assert text.startswith(f"#:schema ./{plan_schema.FILE_NAME}\n")
    assert (folder / plan_schema.FILE_NAME).read_text() == plan_schema.render_schema()
    suite_plan = plan.load(folder / "plan.toml")
    assert [(v.label, v.settings) for v in suite_plan.variants] == [
        ("lr 1e-4", {"lr": 1e-4}), ("lr 3e-4", {"lr": 3e-4})
    ]  # fmt: skip
    assert (suite_plan.gpu, suite_plan.settings) == ("A10G", {"epochs": 2})
    assert "# Passes over the subset" in text
    code, output = run_init("--cpu")
    assert (code, "plan.toml exists" in output) == (1, True)  # `main.main` makes it exit code 2


@pytest.mark.parametrize("engine", ["retrieval", "captioning", "vqa"])
def test_every_commented_setting_is_one_that_the_engine_takes(folder: Path, engine: str) -> None:
    text = plan_template.render_plan(plan_template.PlanAnswers("p", engine, ["s"], ["m"]))
    (folder / "p.toml").write_text(re.sub(r"^# (?=\w+ = )", "", text, flags=re.MULTILINE))
    settings = plan.load(folder / "p.toml").settings
    params = catalog.load(engine).Params.model_validate(settings)
    assert {"epochs", "batch", "lr"} <= params.model_fields_set
    assert params.evaluate_on != (), "`[]` turns the evaluation off, which is no default"


@pytest.mark.parametrize(
    ("what", "counts"),
    [("models", (1, 2, 1)), ("subsets", (2, 1, 1)), ("seeds", (1, 1, 3)), ("nothing", (1, 1, 1))],
)
def test_each_comparison_is_a_list_of_several(folder: Path, what: str, counts: object) -> None:
    assert run_init("--compare", what)[0] == 0
    suite_plan = plan.load(folder / "plan.toml")
    assert (len(suite_plan.subsets), len(suite_plan.models), len(suite_plan.seeds)) == counts


def test_answers_at_a_terminal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init, "_is_terminal", lambda: True)
    code, output = run_init(answers="emoji_train\ncpu\nseeds\n")
    assert code == 0, output
    suite_plan = plan.load(folder / "plan.toml")
    assert (suite_plan.subsets, suite_plan.cpu) == (("emoji_train",), True)
    assert suite_plan.seeds == (1, 2, 3)


def test_a_folder_of_data_decides_the_engine(folder: Path) -> None:
    (folder / "challenge" / "train").mkdir(parents=True)
    (folder / "challenge" / "train.csv").write_text("id,path,question,a,b,c,d,answer\n")
    code, output = run_init("--data", "challenge")
    assert code == 0, output
    suite_plan = plan.load(folder / "plan.toml")
    assert (suite_plan.engines, suite_plan.subsets) == (("vqa",), ("vqa_challenge_train",))
    assert suite_plan.settings["data_root"] == str(folder / "challenge")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "emoji_trian"], "did you mean 'emoji_train'?"),
        (["--data", "."], "no subset is complete there"),
        (["--compare", "foo"], "is not models, subsets, seeds"),
        (["--compare", "lrr=1,2"], "unknown key 'lrr'; did you mean 'lr'?"),
        (["--compare", "lr=1"], "is not models, subsets, seeds"),
        (["--data", "emoji_train", "-e", "vqa"], "these data are for retrieval"),
        (["--gpu", "A11G"], "no such GPU"),
    ],
)
def test_what_cannot_be_planned_leaves_no_file(
    folder: Path, words: list[str], message: str
) -> None:
    code, output = run_init(*words)
    assert code != 0
    assert message in output
    assert not (folder / "plan.toml").exists()


def test_the_memory_check_is_that_of_a_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise plan.PlanError(["does not fit"])

    monkeypatch.setattr(start, "check_memory", refuse)
    assert "does not fit" in run_init("--data", "emoji_train")[1]
    assert not (folder / "plan.toml").exists()


def test_without_the_demos_data_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_choices, "list_training_subsets", lambda data_root: {})
    assert "pip install 'workbench-mm[demo]'" in run_init()[1]

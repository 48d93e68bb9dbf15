"""Every key of every screen, dialog and list: its action exists, and a test presses it."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from textual.actions import parse
from textual.binding import Binding
from textual.dom import DOMNode
from textual.keys import format_key

import workbench.tui
from workbench.tui.app import WorkbenchApp
from workbench.tui.screens.data import DataScreen
from workbench.tui.screens.dialogs import HELP_SECTIONS
from workbench.tui.screens.live.screen import LiveScreen
from workbench.tui.screens.plan.screen import PlanScreen
from workbench.tui.screens.results.screen import ResultsScreen

FOLDER = Path(__file__).parent
PRESSED_IN = {
    "app": "*", "screens.app_commands": "*", "screens.dialogs": "*", "widgets": "*",
    "screens.live": "test_live_screen", "screens.plan": "test_plan_screen",
    "screens.results": "test_results_screen", "screens.record": "test_results_screen",
    "screens.data": "test_data_screen", "screens.record_browser": "test_data_screen",
    "screens.jump": "test_app_commands",
}  # fmt: skip
"""Beginning of a module -> test file that presses its keys; `*`: any."""


def list_classes() -> Iterator[type[DOMNode]]:
    """The classes of the screen that declare keys."""
    for module in pkgutil.walk_packages(workbench.tui.__path__, "workbench.tui."):
        members = inspect.getmembers(importlib.import_module(module.name), inspect.isclass)
        for _, member in members:
            if member.__module__ == module.name and "BINDINGS" in vars(member):
                yield member


def find_pressed(path: Path) -> set[str]:
    """Keys that a test file presses: constants, and letters of `*"word"` and `for key in "12"`."""
    keys = set()
    for node in ast.walk(ast.parse(path.read_text())):
        word = node.value if isinstance(node, ast.Starred) else getattr(node, "iter", None)
        if isinstance(word, ast.Constant) and isinstance(word.value, str):
            keys |= set(word.value)
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            keys.add(node.value)
    return keys


def find_gaps(owner: type[DOMNode], pressed: dict[str, set[str]]) -> Iterator[str]:
    """Keys of a class without an action or without a test."""
    module = owner.__module__.removeprefix("workbench.tui.")
    begin = max((b for b in PRESSED_IN if f"{module}.".startswith(f"{b}.")), key=len)
    name = PRESSED_IN[begin]
    keys = set().union(*pressed.values()) if name == "*" else pressed[name]
    for declared in owner.BINDINGS:
        binding = declared if isinstance(declared, Binding) else Binding(*declared)
        target, action, _ = parse(binding.action)
        holder = WorkbenchApp if target == "app" else owner
        if not any(hasattr(each, f"action_{action}") for each in (holder, WorkbenchApp)):
            yield f"{owner.__name__} {binding.key}: no action_{action}"
        if not keys & set(binding.key.split(",")):
            yield f"{owner.__name__} {binding.key} ({action}): no test presses it"


def test_every_key_has_an_action_and_a_test_that_presses_it() -> None:
    pressed = {path.stem: find_pressed(path) for path in FOLDER.rglob("test_*.py")}
    classes = list(list_classes())
    assert len(classes) > 20
    gaps = [gap for owner in classes for gap in find_gaps(owner, pressed)]
    assert not gaps, "\n".join(gaps)


def name_key(key: str) -> str:
    """A key as the help names it, without Shift: `/`, `F1`, `Esc`, `Ctrl+S`."""
    *modifiers, last = key.removeprefix("shift+").split("+")
    name = {"escape": "Esc"}.get(last, format_key(last))
    is_letter = len(name) == 1 and not modifiers
    return "+".join([*map(str.capitalize, modifiers), name if is_letter else name.capitalize()])


@pytest.mark.parametrize(
    ("title", "screen"),
    [("Everywhere", WorkbenchApp), ("Plan", PlanScreen), ("Live", LiveScreen),
     ("Results", ResultsScreen), ("Data", DataScreen)],
)  # fmt: skip
def test_the_help_tells_every_key_of_a_screen(title: str, screen: type[DOMNode]) -> None:
    sections = {name: " ".join(keys for keys, _ in lines) for name, lines in HELP_SECTIONS}
    help_keys = {*sections[title].split(), *sections["Everywhere"].split()}
    own = [base for base in screen.__mro__ if base.__module__.startswith("workbench.")]
    for declared in (binding for base in own for binding in vars(base).get("BINDINGS", ())):
        assert help_keys & set(map(name_key, declared.key.split(","))), declared.key


@pytest.mark.parametrize("binding", [Binding("n", "nothing", ""), Binding("f12", "help", "")])
def test_a_key_without_action_or_test_is_a_gap(binding: Binding) -> None:
    class Extra(DOMNode):
        BINDINGS = [binding]  # noqa: RUF012 - Textual declares it

    Extra.__module__ = "workbench.tui.app"
    assert len(list(find_gaps(Extra, {"test_app": {"n"}}))) == 1

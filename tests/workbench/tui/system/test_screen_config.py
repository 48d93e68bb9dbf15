"""screen.toml and what the screen remembers: wrong entries are named and left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.tui.system import screen_config, themes


def test_every_setting_is_read(tmp_path: Path) -> None:
    (tmp_path / "screen.toml").write_text(
        'theme = "light"\ncopy_command = "wl-copy"\n[keys]\nf1 = "question_mark"\n'
        '[keys.results]\nf = "slash"\n'
    )
    assert screen_config.read_config(tmp_path) == screen_config.ScreenConfig(
        "light", "wl-copy", {"all": {"f1": "question_mark"}, "results": {"f": "slash"}}
    )
    assert screen_config.read_config(tmp_path / "no") == screen_config.ScreenConfig()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('theme = "pink"', "no theme 'pink'; there are dark, light, ansi, colour-blind"),
        ("copy_command = 3", "copy_command is a text"),
        ("thema = 1", "unknown key 'thema'"),
        ("[keys.reports]\na = 'b'", "[keys.reports] is no screen"),
        ("[keys", "cannot be read"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / "screen.toml").write_text(content)
    config = screen_config.read_config(tmp_path)
    assert problem in config.problems[0]
    assert (config.theme, config.copy_command, config.keys) == ("", "", {})


@pytest.mark.parametrize("content", ["{torn", "[]", None])
def test_a_damaged_memory_is_none(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "screen-state.json").write_text(content)
    assert screen_config.read_state(tmp_path) == {}
    screen_config.write_state(tmp_path, {"theme": "ansi"})
    assert screen_config.read_state(tmp_path) == {"theme": "ansi"}


def test_every_theme_has_colours() -> None:
    assert tuple(t.name.removeprefix(themes.PREFIX) for t in themes.THEMES) == screen_config.THEMES
    assert len({(theme.primary, theme.error) for theme in themes.THEMES}) == len(themes.THEMES)
    assert all("row-cursor" in theme.variables for theme in themes.THEMES)

"""Attributes of screens and widgets against those of Textual."""

from __future__ import annotations


def test_no_attribute_hides_one_of_textual() -> None:
    """Textual's objects have hundreds of attributes; a second `_closed` broke a screen once."""
    import re
    from pathlib import Path

    from textual.screen import ModalScreen, Screen
    from textual.scroll_view import ScrollView
    from textual.widget import Widget

    import workbench.tui

    theirs = {n for t in (Widget, Screen, ModalScreen, ScrollView) for n in vars(t())}
    theirs |= {n for t in (Screen, ModalScreen, ScrollView) for k in t.__mro__ for n in vars(k)}
    meant = {"virtual_size", "scroll_y", "remark", "title", "value", "cursor", "theme"}
    for folder in ("screens", "widgets"):
        for file in (Path(workbench.tui.__file__).parent / folder).glob("*.py"):
            ours = set(
                re.findall(r"^        self\.(\w+)(?:: [^=]+)? = ", file.read_text(), re.MULTILINE)
            )
            assert not (ours & theirs) - meant, file

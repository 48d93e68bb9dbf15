"""The log on screen: wrapped, searched, and at its end until scrolled."""

from __future__ import annotations

from rich.cells import cell_len
from textual.app import App, ComposeResult

from workbench.tui.widgets.log_tail import LogTail, _wrap

LINES = ("short", "Error: " + "x" * 60, "한글 " * 20, "epoch 1", "error at last", "end")


class LogApp(App[None]):
    """A log in 40 x 4 cells."""

    CSS = "LogTail { width: 40; height: 4; } LogTail > .log--match { text-style: reverse; }"

    def compose(self) -> ComposeResult:
        yield LogTail()


def test_wrapped_parts_fit_and_lose_nothing() -> None:
    for line in LINES:
        parts = _wrap(line, 20)
        assert all(cell_len(part) <= 20 for part in parts)
        assert "".join([parts[0], *(part[2:] for part in parts[1:])]) == line


async def test_search_counts_marks_and_goes_to_matches() -> None:
    app = LogApp()
    async with app.run_test(size=(60, 10)) as pilot:
        log = app.query_one(LogTail)
        log.show(LINES * 10)
        await pilot.pause()
        assert log.search("error") == 20, "capitals do not matter"
        assert log.search("Error") == 10, "unless the words have any"
        assert log.search("x{3,}") == 10
        assert log.search("[") == 0, "no regular expression: plain text"
        assert log.search("epoch 1$") == 10
        log.jump(-1)
        await pilot.pause()
        assert log.scroll_offset.y == 51, "the ninth of ten in 60 lines"
        log.jump(-1)
        await pilot.pause()
        assert log.scroll_offset.y == 45
        styles = {segment.style for segment in log.render_line(0)}
        assert len(styles) == 2, "the match is marked"
        log.toggle_wrap()
        assert log.virtual_size.height > len(LINES) * 10
        log.search("")
        log.toggle_wrap()
        await pilot.pause()
        log.show(LINES)
        log.scroll_to(y=0, animate=False, immediate=True, force=True)
        assert log.render_line(1).text.endswith("x…"), "a line that is cut says so"

"""Markdown on a terminal: widths, split tables, folded parts, no markup, no control characters."""

from __future__ import annotations

import pytest

from results.text.table import text_width
from results.text.terminal_document import first_section, render_document, wrap_text

DOCUMENT = """# Report: demo

- Best by **recall@1** on `emoji_val`: 0.533; a long sentence that has to be wrapped
  - 한글 한글 한글 한글 한글 한글 한글 한글 한글 한글 한글 한글

| run | recall@1 | recall@5 | time | RSS |
|---|---:|---:|---:|---:|
| `emoji_train` · `effnet` | 0.533 [0.499, 0.570] | 0.761 [0.730, 0.790] | 3:33.03 | 1.98 GiB |
| a\\|b\x1b[2J | 0.1 | 0.2 | 0:01 | 1 GiB |

<details>
<summary>Settings</summary>

secret settings

| a |
|---|
| hidden |

</details>

After ![loss](x.svg) [link](y)

```text
┌──┐
```
"""


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_lines_fit_and_say_the_same(width: int) -> None:
    lines = render_document(DOCUMENT, width, styled=False).splitlines()
    assert max(map(text_width, lines)) <= width
    text = "\n".join(lines)
    for part in (
        "Report: demo",
        "0.761 [0.730, 0.790]",
        "1.98 GiB",
        "a|b\\x1b[2J",
        "[loss]",
        "┌──┐",
    ):
        assert part in text
    assert not {"**", "`", "<", "|---"} & {
        mark for mark in ("**", "`", "<", "|---") if mark in text
    }
    assert "▸ Settings" in text
    assert "secret" not in text
    assert "hidden" not in text
    heads = [line for line in lines if line.startswith("run ")]
    assert (len(heads) == 1) is (width > 100)
    assert all(line.split()[0] == "run" for line in heads)


def test_headings_are_bold_where_asked_for() -> None:
    assert "\x1b[1mReport: demo\x1b[0m" in render_document(DOCUMENT, 80)


def test_wide_characters_count_as_two() -> None:
    assert wrap_text("한글 한글 한글", 9) == ["한글 한글", "한글"]
    assert wrap_text("toolongword is", 4) == ["toolongword", "is"]


def test_the_first_section_ends_where_the_second_begins() -> None:
    text = "# T\n\n## Summary\n\na\n\n### Ranking\n\nb\n\n## Rest\n\nc\n"
    assert first_section(text) == text[: text.index("## Rest")]
    assert first_section("# T\n\n## Summary\n") == "# T\n\n## Summary\n"

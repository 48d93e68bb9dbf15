"""Text of a plan on the terminal."""

from __future__ import annotations

import pytest

from workbench.cli.plans import output
from workbench.output_language import set_language

SENTENCE = (
    "what is forecast: this program's engine `vqa`, task `train`, with `qwen2.5-vl-3b`; another "
    "program with these settings needs other memory"
)


@pytest.mark.parametrize("markdown", [False, True])
def test_a_paragraph_is_translated_before_it_is_wrapped(
    markdown: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    set_language("ko")
    try:
        output.print_paragraph(SENTENCE, markdown=markdown)
    finally:
        set_language("en")
    shown = capsys.readouterr().out
    assert shown.startswith("예측 대상: 이 프로그램의 `vqa` 엔진")
    assert all(len(line) <= 80 for line in shown.splitlines()) or markdown

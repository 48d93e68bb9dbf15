"""The report as one HTML file, as LaTeX, and as a step summary; hostile text stays text."""

import io
import re
import zipfile

import pytest
from markdown_it import MarkdownIt

from results import report
from results.report import table_files
from results.report.html import render_html
from results.report.latex import escape_latex, render_latex
from results.report.notion import render_notion

HOSTILE = r"""# Report <script>alert(1)</script>

## Section & more

| name | value_1 |
|---|---:|
| `a_b` | 0.5 |
| [0, 1] | 2 |
| <img src=x onerror=alert(1)> \input{/etc/passwd} $x^2$ 50% | **1.0** |

- one
  - two [link](javascript:alert(1))

```text
┌─┐ 학습
\end{Verbatim}\input{x}
```

![loss](figures/loss.svg) ![out](../secret.png)
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "out" / "figures").mkdir(parents=True)
    (tmp_path / "out" / "figures" / "loss.svg").write_text("<svg/>")
    (tmp_path / "secret.png").write_bytes(b"secret")
    return tmp_path / "out"


def test_a_page_runs_nothing_and_holds_its_figures(folder):
    page = render_html(HOSTILE, folder, "ko")
    assert "<script" not in page
    assert "<img src=x" not in page
    assert 'href="javascript' not in page
    assert "default-src 'none'" in page
    assert 'src="data:image/svg+xml;base64,PHN2Zy8+"' in page
    assert "c2VjcmV0" not in page, "a file outside of the folder was embedded"
    assert '<html lang="ko">' in page
    assert '<a href="#s3">Section &amp; more</a>' in page
    assert '<td class="right">0.5</td>' in page
    assert "<i>학</i><i>습</i>" in page, "two columns each in a block of code"
    for tag in ("table", "div", "ul", "li", "pre", "td", "tr"):
        assert len(re.findall(f"<{tag}[ >]", page)) == page.count(f"</{tag}>"), tag


def test_latex_has_no_commands_of_the_text_and_balanced_groups():
    document = render_latex(HOSTILE)
    body = document[document.index(r"\begin{document}") :]
    assert r"\input" not in body.replace(r"\textbackslash{}input", "").replace(
        r"\end {Verbatim}\input{x}", "verbatim"
    )
    assert r"\usepackage{kotex}" in document
    assert r"\toprule" in body
    assert "\n{}[0, 1] & 2" in body, "a row that begins with a bracket is no option of the last"
    assert r"\textbf{1.0}" in body
    assert "figures/loss.png" in body
    assert body.count(r"\begin{") == body.count(r"\end{")
    outside = re.sub(r"\\begin\{Verbatim\}.*?\\end\{Verbatim\}", "", body, flags=re.DOTALL)
    plain = re.sub(r"\\[{}]", "", outside)
    assert plain.count("{") == plain.count("}")


def test_every_character_with_a_meaning_is_escaped():
    text = escape_latex("\\ { } _ % & # $ ^ ~ < > \x00 é 학")
    assert not re.search(r"(?<!\\)[%&#$^~_]", text)
    assert text.endswith("é 학")
    assert "\x00" not in text


def test_forms_are_written_beside_the_markdown(mixed, tmp_path):
    written = report.write(mixed, tmp_path, "ko", forms=("html", "tex"), figures=False)
    assert [p.name for p in written[:3]] == ["report.ko.md", "report.ko.html", "report.ko.tex"]
    assert all(p.read_text().strip() for p in written[:3])


def test_a_step_summary_is_appended_and_cut_with_a_word(tmp_path):
    path = tmp_path / "summary.md"
    path.write_text("before\n")
    assert not report.append_step_summary("# report\n", path)
    assert path.read_text() == "before\n# report\n\n"
    assert report.append_step_summary("line of text\n" * 100_000, path)
    data = path.read_bytes()
    assert len(data) <= report.SUMMARY_BYTES
    assert data.decode().rstrip().endswith("`workbench report` prints the whole.")
    assert report.append_step_summary("한 줄\n" * 200_000, path.with_name("ko.md"), "ko")
    assert path.with_name("ko.md").read_text().rstrip().endswith("`workbench report`로 출력할 것.")


def test_a_cut_summary_says_so_outside_of_folds_and_code(tmp_path):
    path = tmp_path / "summary.md"
    folded = "<details>\n<summary>Settings</summary>\n\n```toml\n" + "name = 1\n" * 120_000
    assert report.append_step_summary(f"# R\n\n{folded}```\n\n</details>\n", path)
    text = path.read_text()
    assert len(path.read_bytes()) <= report.SUMMARY_BYTES
    tokens = MarkdownIt("commonmark", {"html": True}).parse(text)
    assert [t.type for t in tokens[-4:]] == [
        "paragraph_open", "inline", "paragraph_close", "blockquote_close",
    ]  # fmt: skip
    assert text.count("<details>") == text.count("</details>") == 1
    assert text.index("</details>") < text.index("> The report is")


def test_a_notion_archive_holds_the_page_and_its_pictures(folder):
    (folder / "figures" / "loss.png").write_bytes(b"png")
    page = f"{HOSTILE}\n<details>\n<summary>Settings</summary>\n\nfolded\n\n</details>\n"
    data = render_notion(page, folder, "report.md")
    assert data == render_notion(page, folder, "report.md"), "same report, same bytes"
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.namelist() == ["report.md", "figures/loss.png"]
        text = archive.read("report.md").decode()
    assert "![loss](figures/loss.png)" in text
    assert "## Settings" in text
    assert "details" not in text
    assert b"secret" not in data, "a file outside of the folder was packed"


def test_the_notion_form_lies_beside_the_report(mixed, tmp_path):
    pytest.importorskip("matplotlib")
    written = report.write(mixed, tmp_path, "ko", forms=("notion",))
    assert written[1].name == "report.ko.notion.zip"
    with zipfile.ZipFile(written[1]) as archive:
        assert "figures.ko/loss.png" in archive.namelist()


PICTURE = "pictures/0123456789abcdef01234567.png"
WITH_PICTURES = rf"""# Report

| image | caption |
|---|---|
| <img src="{PICTURE}" width="96" alt=""> | \<img src="{PICTURE}" width="96" alt=""> |
| <img src="{PICTURE.replace("png", "webp")}" width="384" alt=""> | x |
"""


def test_pictures_of_tables_are_pictures_in_every_form(folder):
    """Foreign text that looks like one has its `<` escaped, and stays text."""
    (folder / "pictures").mkdir()
    (folder / PICTURE).write_bytes(b"picture")
    page = render_html(WITH_PICTURES, folder)
    assert page.count("<img ") == 2
    assert '<img src="data:image/png;base64,cGljdHVyZQ==" alt="" width="96"' in page
    assert page.count("&lt;img src") == 1
    body = render_latex(WITH_PICTURES)
    assert body.count(r"\includegraphics") == 1
    assert r"\linewidth<1.00in " in body
    assert "webp" in body, "TeX cannot show it: its name"
    assert body.count(r"\textless{}img") == 1
    with zipfile.ZipFile(io.BytesIO(render_notion(WITH_PICTURES, folder, "r.md"))) as archive:
        assert PICTURE in archive.namelist()
        assert f"![]({PICTURE})" in archive.read("r.md").decode()
    (table,) = table_files.read_tables(WITH_PICTURES)
    assert table.rows[0][0] == PICTURE


def _table(columns, cell):
    row = " | ".join([cell] * columns)
    return f"# T\n\n| {row} |\n|{'---|' * columns}\n| {row} |\n"


def test_wide_tables_wrap_then_shrink_then_turn_the_page(tmp_path):
    upright, wide = (render_latex(_table(n, "a text of 18 letters")) for n in (9, 16))
    assert "landscape}" not in upright
    assert wide.count("\\begin{landscape}") == wide.count("\\end{landscape}") == 1
    long = "SigLIP probability (google/siglip2-so400m-patch14-384)"
    assert "\\footnotesize" in render_latex(
        f"| {long} | {long} | {long} |\n|---|---|---|\n| 1 | 2 | 3 |\n"
    )
    assert '<table class="wide">' in render_html(_table(16, "x"), tmp_path)
    assert '<table class="narrow">' in render_html(_table(9, "x"), tmp_path)
    assert '<th class="text">' in render_html(_table(3, long), tmp_path)

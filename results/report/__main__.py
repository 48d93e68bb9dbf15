"""`python -m results.report VIEW.json [--out DIR] [--lang ko]`: a report in a process of its own.

The workbench runs this as a child process, so that it loads neither matplotlib nor the tables.
Without `--out` the report goes to stdout and nothing is written.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pydantic import ValidationError

from results import report
from results.comparison.document_view import DocumentView
from results.records.suite_view import REPORT_FORMS, SuiteView
from results.text.translations import LANGS


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 2 with one sentence on stderr when the view or the folder is unusable."""
    parser = argparse.ArgumentParser(prog="python -m results.report", description=__doc__)
    parser.add_argument("view", help="a DocumentView or SuiteView as JSON; - reads stdin")
    parser.add_argument("--out", type=Path, help="folder for report.md and figures/")
    parser.add_argument("--lang", choices=LANGS, default="en")
    parser.add_argument("--form", choices=REPORT_FORMS, action="append", default=[])
    parser.add_argument("--github", type=Path, help="append to this step summary")
    parser.add_argument("--no-figures", action="store_true")
    parser.add_argument("--appendix", action="store_true", help="counters and tensors by run")
    options = parser.parse_args(arguments)
    try:
        view = _parse_view(_read(options.view))
        if options.github is not None:
            text = report.render(view, options.lang, appendix=options.appendix)
            if report.append_step_summary(text, options.github, options.lang):
                sys.stderr.write("the step summary was cut to 900 KiB\n")
        elif options.out is None:
            _print(report.render(view, options.lang, appendix=options.appendix))
        else:
            flags = {"figures": not options.no_figures, "appendix": options.appendix}
            paths = report.write(view, options.out, options.lang, forms=options.form, **flags)
            _print("".join(f"{path}\n" for path in paths))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = ".".join(map(str, first["loc"])) or "the file"
        sys.stderr.write(f"{options.view} is no suite view: {field}: {first['msg']}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"cannot use {error.filename}: {error.strerror}\n")
        return 2
    return 0


def _parse_view(data: bytes) -> DocumentView | SuiteView:
    """A document begins with its kind, a suite with its name."""
    model = DocumentView if data.startswith(b'{"kind"') else SuiteView
    return model.model_validate_json(data)


def _read(name: str) -> bytes:
    return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()


def _print(text: str) -> None:
    """UTF-8 whatever the locale: Korean must leave a process of the C locale too."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode())
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())

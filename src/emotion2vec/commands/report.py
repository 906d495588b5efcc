"""`emotion2vec report`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from emotion2vec.commands.output import SOME_FAILED


def report(
    results: Path,
    /,
    *,
    out: Path,
    format: Literal["all", "html", "markdown", "csv", "latex"] = "all",
    no_maps: bool = False,
) -> int:
    """Write what a benchmark found as a page to look at, and as tables to publish.

    emotion2vec report runs/benchmark --out runs/report

    Writes report.html (one file that needs no other and no network), report.md, report.tex and
    results.csv; robustness.csv and transfer.csv where there are such results. Cells are compared
    within one task, corpus and protocol only. A file that cannot be used is listed, and the exit
    code is 3.

    Parameters
    ----------
    results
        The --out of emotion2vec benchmark.
    out
        Folder for the report.
    format
        One of them only.
    no_maps
        No maps of features on the page; they take seconds a backbone.
    """
    from emotion2vec.reporting.report import FORMATS, write_report

    formats = FORMATS if format == "all" else (format,)
    written, found = write_report(results, out, formats=formats, maps=not no_maps)
    for path in written:
        print(path)
    for path, error in found.errors.items():
        print(f"not used: {path}: {error}", file=sys.stderr)
    return SOME_FAILED if found.errors else 0

"""From a folder of results to the report's files."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from emotion2vec.atomic import atomic_path
from emotion2vec.reporting.cells import Results, read_results
from emotion2vec.reporting.maps import Map, map_of
from emotion2vec.reporting.page import page
from emotion2vec.reporting.tables import Group, group_cells
from emotion2vec.reporting.writers import (
    cells_csv,
    latex,
    markdown,
    robustness_csv,
    transfer_csv,
)

FORMATS = ("html", "markdown", "csv", "latex")


def write_report(
    folder: str | Path,
    out: str | Path,
    *,
    formats: Collection[str] = FORMATS,
    maps: bool = True,
) -> tuple[list[Path], Results]:
    """Write the report of a folder of results; return the files and what was read.

    Args:
        folder: what `emotion2vec benchmark` wrote
        out: where `report.html`, `report.md`, `report.tex`, `results.csv` and, where there are
            such results, `robustness.csv` and `transfer.csv` go
        formats: some of `FORMATS`
        maps: whether the page maps features, which takes seconds a backbone

    Raises:
        FileNotFoundError: if there are no results
        ValueError: for an unknown format, or if no file can be used
        OSError: if it cannot be written
    """
    unknown = set(formats) - set(FORMATS)
    if unknown:
        raise ValueError(f"there is no format {min(unknown)!r}; there are {', '.join(FORMATS)}.")
    results = read_results(folder)
    if not (results.cells or results.robustness or results.transfer):
        path, error = next(iter(results.errors.items()))
        raise ValueError(f"none of {len(results.errors)} files can be used; {path}: {error}")
    groups = group_cells(results.cells)
    texts = {}
    if "html" in formats:
        drawn, note, results = draw_maps(groups, results) if maps else ({}, "", results)
        texts["report.html"] = page(groups, results, drawn, note)
    if "markdown" in formats:
        texts["report.md"] = markdown(groups, results)
    if "latex" in formats:
        texts["report.tex"] = latex(groups, results)
    if "csv" in formats:
        texts["results.csv"] = cells_csv(groups)
        if results.robustness:
            texts["robustness.csv"] = robustness_csv(results.robustness)
        if results.transfer:
            texts["transfer.csv"] = transfer_csv(results.transfer)
    paths = [Path(out) / name for name in texts]
    for target, text in zip(paths, texts.values(), strict=True):
        with atomic_path(target) as path:
            path.write_text(text, encoding="utf-8")
    return paths, results


def draw_maps(groups: Sequence[Group], results: Results) -> tuple[dict[Path, Map], str, Results]:
    """Maps by the cell's path, why there are none, and the results with the errors of bad files."""
    drawn, errors = {}, dict(results.errors)
    for cell in [row.cell for group in groups for row in group.rows]:
        try:
            found = map_of(cell)
        except ValueError as error:
            errors[cell.path.with_suffix(".npz")] = str(error)
        except ImportError as error:
            return {}, f"No maps: they need scikit-learn or umap-learn ({error}).", results
        else:
            if found is not None:
                drawn[cell.path] = found
    return drawn, "", replace(results, errors=errors)

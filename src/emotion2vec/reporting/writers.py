"""The report as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

from emotion2vec.reporting.cells import Cell, Results, Robustness, Transfer, as_interval
from emotion2vec.reporting.lines import (
    LAYERS_NOTE,
    READING,
    Table,
    elsewhere_table,
    group_header,
    layer_table,
    mapping_text,
    protocol_facts,
    published_line,
    recall_table,
    robustness_groups,
    robustness_table,
    row_line,
    transfer_table,
    transfer_title,
)
from emotion2vec.reporting.tables import Group, Row


def markdown(groups: Sequence[Group], results: Results) -> str:
    """The report as Markdown: a section a group, commands below each table."""
    parts = ["# Speech emotion benchmark", READING]
    for group in groups:
        parts += _group_markdown(group)
    for title, found in robustness_groups(results.robustness).items():
        parts += [f"## Robustness: {_md(title)}", _md_table(robustness_table(found))]
        parts.append(_md_commands((one.subject.name, one.command) for one in found))
    for one in results.transfer:
        parts += [f"## Across corpora: {_md(transfer_title(one))}", _md_table(transfer_table(one))]
        if one.label_mapping:
            parts.append(_md(mapping_text(one)))
        parts.append(_md_commands([(one.subject.name, one.command)]))
    if results.errors:
        lines = [[results.name_of(path), error] for path, error in results.errors.items()]
        parts += ["## Files that could not be used", _md_table(Table(["file", "why"], lines))]
    return "\n\n".join(parts) + "\n"


def _group_markdown(group: Group) -> list[str]:
    parts = [f"## {_md(group.title)}", "\n".join(f"* {_md(x)}" for x in protocol_facts(group))]
    parts += [f"> **Mind:** {_md(warning)}" for warning in group.warnings]
    if group.traps:
        traps = "\n".join(f"* {_md(trap)}" for trap in group.traps)
        parts.append(f"Traps of {_md(group.corpus)}:\n\n{traps}")
    lines = [_marked(row_line(row, group), row.cell.subject.is_baseline) for row in group.rows]
    for row in group.published:
        name, *rest = published_line(row, group)
        lines.append([f"published: {name}", *rest])
    if lines:
        parts.append(_md_table(Table(group_header(group), lines)))
    recall = recall_table(group)
    if recall.lines:
        parts += ["Recall of each class:", _md_table(recall)]
    for name, cells in group.sweeps.items():
        parts += [f"Layers of {_md(name)}. {LAYERS_NOTE}", _md_table(layer_table(cells))]
    parts.append(_md_commands(commands_of(group)))
    if group.elsewhere:
        title = (
            f"Published for {group.corpus} with other protocols, **not comparable** with the above:"
        )
        parts += [title, _md_table(elsewhere_table(group.elsewhere))]
    return parts


def _marked(line: list[str], is_baseline: bool) -> list[str]:
    return [f"baseline: {line[0]}", *line[1:]] if is_baseline else line


def commands_of(group: Group) -> list[tuple[str, str]]:
    """Name and command of every cell of the group."""
    return [(cell.subject.name, cell.command) for cell in group.cells]


def _md(text: str) -> str:
    """Return text that Markdown shows as it is."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace("\n", " ")
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", text)


def _md_table(table: Table) -> str:
    rows = [table.header, ["---"] * len(table.header), *table.lines]
    texts = [row if row[0] == "---" else [_md(text) for text in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in texts)


def _md_commands(named: Iterable[tuple[str, str]]) -> str:
    text = "\n".join(f"# {name}\n{command}".replace("\r", "") for name, command in named)
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"Each cell again:\n\n{fence}bash\n{text}\n{fence}"


_TEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "−": "$-$", "\u00a0": "~", "–": "--", "·": r"$\cdot$",
    "<": r"$<$", ">": r"$>$", "*": r"$^\star$",
}  # fmt: skip


def _tex(text: str) -> str:
    return "".join(_TEX.get(character, character) for character in text)


def latex(groups: Sequence[Group], results: Results) -> str:
    r"""The report's tables for LaTeX, with \usepackage{booktabs}; commands stand in comments.

    Published rows are there where the protocol is the same; those of others are not.
    """
    parts = [f"% {READING}", r"% \usepackage{booktabs}"]
    for group in groups:
        if not group.rows:
            continue
        baselines = [row for row in group.rows if row.cell.subject.is_baseline]
        blocks = [
            [row_line(row, group) for row in group.rows if row not in baselines],
            [row_line(row, group) for row in baselines],
            [published_line(row, group) for row in group.published],
        ]
        warnings = " ".join(group.warnings[:1] if group.starred else [])
        caption = f"{group.title}. {protocol_facts(group)[0]} {warnings}".strip()
        parts.append(_tex_table(group_header(group), blocks, caption, commands_of(group)))
    for group in groups:
        for name, cells in group.sweeps.items():
            table = layer_table(cells)
            caption = f"{group.title}: layers of {name}. {LAYERS_NOTE}"
            commands = [(cell.subject.name, cell.command) for cell in cells]
            parts.append(_tex_table(table.header, [table.lines], caption, commands))
    for title, found in robustness_groups(results.robustness).items():
        table = robustness_table(found)
        commands = [(one.subject.name, one.command) for one in found]
        parts.append(_tex_table(table.header, [table.lines], f"Robustness: {title}", commands))
    for one in results.transfer:
        table = transfer_table(one)
        caption = f"Across corpora: {transfer_title(one)}"
        commands = [(one.subject.name, one.command)]
        parts.append(_tex_table(table.header, [table.lines], caption, commands))
    for path, error in results.errors.items():
        parts.append(f"% not used: {_one_line(results.name_of(path))}: {_one_line(error)}")
    return "\n\n".join(parts) + "\n"


def _tex_table(
    header: Sequence[str],
    blocks: Sequence[Sequence[Sequence[str]]],
    caption: str,
    commands: Iterable[tuple[str, str]],
) -> str:
    def line(cells: Sequence[str]) -> str:
        return "  " + " & ".join(map(_tex, cells)) + r" \\"

    inner = "\n  \\midrule\n".join("\n".join(map(line, of)) for of in blocks if of)
    comments = [f"% {_one_line(name)}: {_one_line(command)}" for name, command in commands]
    return "\n".join(
        [
            *comments,
            r"\begin{table}",
            r"  \centering\small",
            f"  \\caption{{{_tex(caption)}}}",
            f"  \\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
            r"  \toprule",
            line(header),
            r"  \midrule",
            inner,
            r"  \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
        ]
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())


_FACTS = ("task", "corpus", "protocol", "description", "validation", "selection", "starred",
          "corpus_digest", "backbone", "layer", "kind", "fingerprint", "head", "seeds")  # fmt: skip


def cells_csv(groups: Sequence[Group]) -> str:
    """A line a cell: scores in [0, 1] (CCC in [-1, 1]), one row of names above."""
    rows = {row.cell.path: row for group in groups for row in group.rows}
    return _csv([_cell_values(c, rows.get(c.path)) for group in groups for c in group.cells])


def _cell_values(cell: Cell, row: Row | None) -> dict[str, Any]:
    facts = {**cell.protocol, **cell.backbone, **vars(cell)}
    facts |= {"protocol": cell.protocol["name"], "backbone": cell.subject.backbone}
    facts |= {"head": cell.subject.head, "seeds": len(cell.seeds)}
    values = {name: facts.get(name) for name in _FACTS}
    values |= {"is_baseline": cell.subject.is_baseline, "clips": len(cell.truth)}
    for score, value in cell.pooled.items():
        low, high = cell.interval(score) or (None, None)
        values |= {score: value, f"{score}_low": low, f"{score}_high": high}
        for part in ("deviation_over_seeds", "fold_mean"):
            values[f"{score}_{part}"] = cell.scores.get(part, {}).get(score)
        if row and score in row.differences:
            difference = row.differences[score]
            values[f"{score}_over_best"] = difference.mean
            values[f"{score}_over_best_low"] = difference.interval_95[0]
            values[f"{score}_over_best_high"] = difference.interval_95[1]
            values |= {f"{score}_p": difference.p, f"{score}_p_holm": row.p_holm[score]}
    values |= {f"recall_{k}": v for k, v in (cell.scores.get("recall") or {}).items()}
    values |= {"unreadable": len(cell.errors), "date": cell.date, "machine": cell.machine}
    return values | {"command": cell.command}


def robustness_csv(found: Sequence[Robustness]) -> str:
    """A line a backbone and condition."""
    rows = []
    for one in found:
        for condition in one.conditions:
            row = {"task": one.task, "corpus": one.corpus, "protocol": one.protocol["name"]}
            row |= {"starred": one.starred, "backbone": one.subject.backbone}
            row |= {"layer": one.subject.layer, "head": one.subject.head}
            row |= {n: condition.get(n) for n in ("family", "level", "unit", "name")}
            row |= _scores(condition)
            for score, change in (condition.get("change") or {}).items():
                parts = ("change", "change_low", "change_high", "change_p")
                row |= {f"{score}_{p}": value for p, value in zip(parts, change, strict=True)}
            rows.append(row | {"command": one.command})
    return _csv(rows)


def transfer_csv(found: Sequence[Transfer]) -> str:
    """A line a backbone, training and test corpus."""
    rows = []
    for one in found:
        for entry in one.matrix:
            row = {"backbone": one.subject.backbone, "layer": one.subject.layer}
            row |= {"head": one.subject.head}
            row |= {name: entry.get(name) for name in ("train", "test", "clips")}
            row["classes"] = _joined(entry.get("classes"))
            rows.append(row | _scores(entry) | {"command": one.command})
    return _csv(rows)


def _joined(value: Any) -> Any:
    return " ".join(map(str, value)) if isinstance(value, list) else value


def _scores(entry: Any) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for score, value in entry["scores"].items():
        low, high = as_interval((entry.get("interval_95") or {}).get(score)) or (None, None)
        values |= {score: value, f"{score}_low": low, f"{score}_high": high}
    return values


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    """Return all names that occur, and a line a row; what a row lacks is empty."""
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()

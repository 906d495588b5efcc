"""`emotion2vec models`."""

from __future__ import annotations

from emotion2vec.commands.output import Format


def models(*, format: Format = "table") -> int:
    """List the models that can be loaded by name.

    emotion2vec models --format json

    Any command that takes a model takes these names. mini is in this package; a published model is
    downloaded the first time and kept; "modelscope:NAME" takes it from ModelScope.

    Parameters
    ----------
    format
        How the list is printed.
    """
    import json
    from dataclasses import asdict

    from emotion2vec.published.hub import EMBEDDED, MINI, PUBLISHED

    known = {MINI: EMBEDDED, **PUBLISHED}

    if format == "json":
        print(json.dumps({name: asdict(model) for name, model in known.items()}, indent=1))
        return 0
    rows = [("name", "parameters", "hours", "repository")]
    for name, model in known.items():
        size = f"{model.parameters / 1e6:.1f} M"
        rows.append((name, size, f"{model.hours:,}", model.repo))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    for name, size, hours, repo in rows:
        line = f"{name:<{widths[0]}}  {size:>{widths[1]}}  {hours:>{widths[2]}}  {repo}"
        print(line)
    for name, model in known.items():
        print(f"\n{name}: {model.trained_on}.")
        print(f"  labels: {', '.join(model.labels) or 'none, it is an encoder'}")
        print(f"  licence: {model.licence}")
        print(f"  size: {model.size_from}")
    return 0

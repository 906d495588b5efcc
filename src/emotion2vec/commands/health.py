"""`emotion2vec health`."""

from __future__ import annotations

from pathlib import Path


def health(run: Path, /) -> int:
    """Say whether a pre-training run is healthy, and draw its curves on one page.

    emotion2vec health runs/tiny

    Writes RUN/report.html, which needs no other file, and RUN/report.png. Works while the run goes
    on, too; emotion2vec pretrain writes the same page when it ends.

    Parameters
    ----------
    run
        The --out of emotion2vec pretrain.
    """
    from emotion2vec.pretraining.health import write_report

    print(write_report(run))
    print(f"The page is {run}/report.html.")
    return 0

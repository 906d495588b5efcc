"""`emotion2vec demo`."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from emotion2vec.commands.recognizers import open_recognizer

EXAMPLES = Path("data/moods/clips")
"""Offered where the command runs in a checkout."""


def demo(
    *,
    model: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    host: str = "127.0.0.1",
    port: int = 7860,
    no_browser: bool = False,
    abstain: float = 0.0,
    language: Literal["en", "zh", "both"] = "en",
    device: str | None = None,
) -> int:
    """Open a page to record or drop a file and see and hear which emotion is when.

    emotion2vec demo

    emotion2vec demo --model mini plus-large --abstain 0.4

    The page needs no network and sends nothing away. With two models or more, any two can be
    compared. What was uploaded is removed after an hour, and when the page ends.

    Parameters
    ----------
    model
        One or several, as in emotion2vec recognize.
    host
        Address to listen at; 0.0.0.0 for all of the machine's. Browsers let pages record only from
        127.0.0.1 or over https.
    port
        0 takes a free one.
    no_browser
        Do not open a browser.
    abstain
        Answer "unknown" where the best score is lower.
    language
        Of the labels.
    device
        Where to compute.
    """
    import logging

    from emotion2vec.demo.page import create_page, run_page

    names: list[str | None] = [*dict.fromkeys(model or [])]
    names = names or [None]
    recognizers = {
        name or "mini": open_recognizer(name, abstain=abstain, language=language, device=device)
        for name in names
    }
    if host not in ("127.0.0.1", "localhost", "::1"):
        logging.getLogger("emotion2vec").warning(
            "anybody who reaches %s may use the page; emotion2vec serve has tokens.", host
        )
    examples = [EXAMPLES / f"f1-{mood}-01.ogg" for mood in ("angry", "happy", "neutral", "sad")]
    # gradio reads these when it is imported and when a page is made.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    with tempfile.TemporaryDirectory(prefix="emotion2vec-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        page = create_page(recognizers, examples=[path for path in examples if path.is_file()])
        run_page(page, host=host, port=port, open_browser=not no_browser)
    sys.stderr.flush()
    if any(thread.name.startswith("AnyIO") for thread in threading.enumerate()):
        os._exit(0)  # what still computes would abort the process as it is torn down
    return 0

"""The page itself, by gradio: `create_page` puts it together, `run_page` serves it."""

from __future__ import annotations

import logging
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emotion2vec.demo.findings import (
    MAX_SECONDS,
    Heard,
    Progress,
    hear,
    read_recording,
    write_files,
    write_sound,
)
from emotion2vec.demo.looks import SCRIPT, STYLE
from emotion2vec.demo.panels import downloads_html, error_html, report_html

if TYPE_CHECKING:
    import gradio as gr

    from emotion2vec.recognize import Recognizer

logger = logging.getLogger(__name__)

MAX_MEGABYTES = 200
"""Of a file: half an hour of uncompressed stereo is 300, of flac half of that, of mp3 a tenth."""

NO_MODEL = "none"
"""The choice of no second model."""

KEPT_SECONDS = 3600
"""How long files stay while the page runs; all go when it ends."""

_EMPTY = (
    '<div class="e2v-empty">Record something, or drop a file. What was heard is shown here.</div>'
)


@dataclass(frozen=True)
class Served:
    """What the page answered, kept for the downloads."""

    heard: Heard
    folder: Path
    """where its files lie"""


def create_page(
    recognizers: Mapping[str, Recognizer],
    *,
    examples: Sequence[Path] = (),
    max_seconds: float = MAX_SECONDS,
) -> gr.Blocks:
    """The page for some models, ready for `run_page`.

    Args:
        recognizers: by the name that the page shows; with two or more, any two can be compared
        examples: recordings that are offered
        max_seconds: longer recordings are refused

    Raises:
        ModuleNotFoundError: without gradio, as in the extra `demo`
        ValueError: if there is no model
    """
    import gradio as gr

    if not recognizers:
        raise ValueError("the page has no model; give at least one recognizer.")
    limits = f"up to {max_seconds / 60:g} minutes and {MAX_MEGABYTES} MB"
    with gr.Blocks(
        analytics_enabled=False, title="emotion2vec", delete_cache=(300, KEPT_SECONDS)
    ) as page:
        gr.HTML(_title(limits), apply_default_css=False, js_on_load=None)
        inputs = _inputs(list(recognizers), examples)
        report = gr.HTML(
            _EMPTY, apply_default_css=False, js_on_load=SCRIPT, elem_id="report", min_height=90
        )
        downloads = gr.HTML("", apply_default_css=False, js_on_load=None, elem_id="downloads")
        served = gr.State(None, time_to_live=KEPT_SECONDS)
        show, collect = _actions(recognizers, report, max_seconds)
        gr.on(
            [part.change for part in inputs],
            show,
            inputs,
            [report, served, downloads],
            trigger_mode="always_last",
            show_progress_on=report,
            api_visibility="private",
        ).then(
            collect,
            served,
            downloads,
            show_progress="hidden",
            api_visibility="private",
        )
    return page


def run_page(page: gr.Blocks, *, host: str, port: int, open_browser: bool = False) -> None:
    """Serve a page until SIGINT or SIGTERM; only for this machine, if the host is 127.0.0.1.

    Nothing leaves the machine: no link is shared, no use is reported, no font or script is fetched.

    Args:
        page: of `create_page`
        host: address to listen at
        port: 0 takes a free one
        open_browser: show it

    Raises:
        OSError: if the address cannot be taken
    """
    import gradio as gr

    port = _check_port(host, port)
    theme = gr.themes.Default(
        primary_hue="blue",
        neutral_hue="slate",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    ended = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: ended.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        _, address, _ = page.launch(
            server_name=f"[{host}]" if ":" in host else host,
            server_port=port,
            theme=theme,
            inbrowser=open_browser,
            max_file_size=MAX_MEGABYTES * 2**20,
            share=False,
            quiet=True,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            run_history=False,
            enable_monitoring=False,
            footer_links=[],
            prevent_thread_lock=True,
        )
        logger.info("the page is at %s (Ctrl-C ends it).", address)
        ended.wait()
    finally:
        page.close(verbose=False)
        for number, handler in before.items():
            signal.signal(number, handler)


def _title(limits: str) -> str:
    return (
        f'<style>{STYLE}</style><div class="e2v-title"><h1>Which emotion is in a voice?</h1>'
        "<p>Record something or drop a file. It is heard on the machine that runs this page and "
        f"sent nowhere else; {limits}.</p></div>"
    )


def _inputs(names: Sequence[str], examples: Sequence[Path]) -> list[Any]:
    """The recording, the model and the one to compare it with."""
    import gradio as gr

    recording = gr.Audio(
        type="filepath",
        label="Recording",
        buttons=[],
        editable=False,
        elem_id="recording",
        waveform_options=gr.WaveformOptions(show_recording_waveform=False),
    )
    if examples:
        gr.Examples([str(path) for path in examples], recording, label="Examples")
    with gr.Row(visible=len(names) > 1):
        model = gr.Dropdown(names, value=names[0], label="Model", filterable=False, min_width=200)
        other = gr.Dropdown(
            [NO_MODEL, *names],
            value=NO_MODEL,
            label="Compare with",
            filterable=False,
            min_width=200,
        )
    return [recording, model, other]


def _actions(
    recognizers: Mapping[str, Recognizer], report: gr.HTML, max_seconds: float
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """What the page does when its inputs change, and afterwards."""
    import gradio as gr

    def keep(file: Path) -> Path:
        """The file, which gradio now serves and will remove."""
        return Path(report.move_resource_to_block_cache(file) or file)

    def show(
        path: str | None,
        model: str,
        other: str,
        progress: Progress = gr.Progress(),  # noqa: B008
    ) -> tuple[str, Served | None, str]:
        if path is None:
            return _EMPTY, None, ""
        progress(0.0, "reading")
        chosen = {name: recognizers[name] for name in (model, other) if name != NO_MODEL}
        try:
            samples = read_recording(path, max_seconds=max_seconds)
            heard = hear(Path(path).name, samples, chosen, progress=progress)
            folder = Path(report.GRADIO_CACHE) / secrets.token_hex(16)
            sound = keep(write_sound(samples, folder / "sound.wav"))
        except (OSError, ValueError, ImportError, RuntimeError, MemoryError) as error:
            return error_html(str(error)), None, ""
        return report_html(heard, sound), Served(heard, folder), ""

    def collect(served: Served | None) -> str:
        if served is None:
            return ""
        found = []
        for finding in served.heard.findings:
            try:
                files = write_files(served.heard, finding, served.folder)
            except OSError as error:
                return error_html(f"the files for download cannot be written: {error}")
            found.append((finding.model, [keep(file) for file in files]))
        return downloads_html(found)

    return show, collect


def _check_port(host: str, port: int) -> int:
    """Return a port that can be listened at; gradio would go on to another, or say less."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise OSError(
                f"{host}:{port} cannot be listened at ({error.strerror or error}); choose another "
                "port, or 0 for a free one."
            ) from error
        return int(listener.getsockname()[1])

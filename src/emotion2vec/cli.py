"""The `emotion2vec` command: one subcommand a journey.

Nothing heavy is imported before a command runs, so that help answers at once.
"""

from __future__ import annotations

import logging
import os
import sys
from io import TextIOWrapper

from cyclopts import App, CycloptsError, Parameter

from emotion2vec import __version__
from emotion2vec.commands.ablate import ablate
from emotion2vec.commands.benchmark import benchmark
from emotion2vec.commands.convert import convert
from emotion2vec.commands.corpora import corpora
from emotion2vec.commands.demo import demo
from emotion2vec.commands.doctor import doctor
from emotion2vec.commands.export import export
from emotion2vec.commands.extract import extract
from emotion2vec.commands.finetune import finetune
from emotion2vec.commands.health import health
from emotion2vec.commands.label import label
from emotion2vec.commands.listen import listen
from emotion2vec.commands.models import models
from emotion2vec.commands.pack import pack
from emotion2vec.commands.pretrain import pretrain
from emotion2vec.commands.probe import probe
from emotion2vec.commands.recognize import recognize
from emotion2vec.commands.report import report
from emotion2vec.commands.robustness import robustness
from emotion2vec.commands.serve import serve
from emotion2vec.commands.timeline import timeline
from emotion2vec.commands.transfer import transfer

# Module -> extra that installs it.
_EXTRAS = {
    "accelerate": "train",
    "tensorboard": "train",
    "tomli_w": "train",
    "sklearn": "eval",
    "matplotlib": "eval",
    "transformers": "hf",
    "modelscope": "modelscope",
    "peft": "finetune",
    "pyarrow": "parquet",
    "opensmile": "opensmile",
    "silero_vad": "vad",
    "sounddevice": "mic",
    "onnx": "export",
    "onnxscript": "export",
    "onnxruntime": "onnx",
    "fastapi": "serve",
    "prometheus_client": "serve",
    "python_multipart": "serve",
    "uvicorn": "serve",
    "gradio": "demo",
    "ray": "ray",
}

app = App(
    name="emotion2vec",
    version=__version__,
    default_parameter=Parameter(negative=""),  # no --no-quiet beside --quiet
    help="Emotion in speech: recognize, extract, pre-train and probe with emotion2vec.\n\n"
    "emotion2vec recognize call.wav\n\n"
    "emotion2vec COMMAND --help shows an example and the options of a command. "
    "Any command takes --debug, which shows the traceback of an error. Exit codes: 0 all went "
    "well, 1 an error, 3 finished but some recordings had to be left out.",
)

_COMMANDS = (
    recognize,
    timeline,
    listen,
    serve,
    demo,
    extract,
    models,
    convert,
    export,
    pack,
    pretrain,
    health,
    finetune,
    label,
    corpora,
    probe,
    benchmark,
    robustness,
    transfer,
    ablate,
    report,
    doctor,
)
for _place, _command in enumerate(_COMMANDS):
    app.command(_command, sort_key=_place)  # type: ignore[call-overload]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit; errors are one line, with --debug the whole traceback."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    # cyclopts takes a lone hyphen for an option; find_recordings knows both names.
    arguments = ["/dev/stdin" if a == "-" else a for a in arguments if a != "--debug"]
    for stream in (sys.stdout, sys.stderr):  # file names need not be valid text
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, format="%(message)s")
    logging.getLogger("emotion2vec").setLevel(logging.DEBUG if debug else logging.INFO)
    try:
        code = app(arguments, result_action="return_value", exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the answers, `head` say, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except CycloptsError as error:  # a command or an option that does not exist, say
        name = " ".join(["emotion2vec", *(error.command_chain or ())])
        print(f"error: {' '.join(str(error).split())} ({name} --help)", file=sys.stderr)
        code = 1
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        if debug:
            raise
        print(f"error: {_explain(error)}", file=sys.stderr)
        code = 1
    except Exception as error:
        if debug:
            raise
        kind = type(error).__name__
        print(f"error: unexpected {kind}: {error} (--debug shows where)", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print("stopped.", file=sys.stderr)
        code = 130
    sys.exit(code or 0)


def _explain(error: Exception) -> str:
    """Return the message; for a missing extra, how to install it."""
    if isinstance(error, ModuleNotFoundError) and str(error) == "No module named 'torch'":
        return (
            "this needs torch: pip install torch. Without it, recognize works, and timeline with "
            "--whole or --turns, on models from emotion2vec export."
        )
    if isinstance(error, ModuleNotFoundError) and error.name in _EXTRAS:
        extra = _EXTRAS[error.name]
        return f"this needs {error.name}: pip install 'emotion2vec[{extra}]'."
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    return str(error)

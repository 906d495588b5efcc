"""Models by name: the published ones, any on a hub, fetched and converted once.

Hugging Face's client does the fetching (cache, resume, progress, revisions, offline mode, mirrors);
ModelScope's does where a name begins with "modelscope:".
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from emotion2vec.caches import cache_folder
from emotion2vec.published.checkpoints import SETTINGS, is_own_format, weights_names
from emotion2vec.published.convert import CONVERSION_NAME, convert_checkpoint

logger = logging.getLogger(__name__)

MODELSCOPE = "modelscope:"
_FORMAT = "converted-1"  # counted up when conversion writes something else
_LICENCE = 'see the model card ("other: model-license"); unanswered upstream (emotion2vec issue 78)'
_NINE = ("angry", "disgusted", "fearful", "happy", "neutral", "other", "sad", "surprised", "<unk>")


@dataclass(frozen=True)
class Published:
    """A published model, as far as its publishers say."""

    repo: str
    """on huggingface.co"""
    modelscope: str
    """on modelscope.cn"""
    parameters: int
    """of what is loaded"""
    hours: int
    """of the last stage of training"""
    trained_on: str
    labels: tuple[str, ...]
    """in English, in the order of the outputs; empty for an encoder without classifier"""
    licence: str
    size_from: str
    """where `parameters` comes from: no card states it exactly. The files hold the weights and two
    optimizer moments of each, 12 bytes a parameter"""
    source: str


PUBLISHED = {
    "base": Published(
        "emotion2vec/emotion2vec_base",
        "iic/emotion2vec_base",
        93_790_988,
        262,
        "pre-trained without labels on IEMOCAP, MELD, CMU-MOSEI, MEAD and MSP-Podcast, from "
        "data2vec 2.0 base (LibriSpeech 960 h)",
        (),
        _LICENCE,
        "from its settings, frame decoder included; agrees with the file's 1.13 GB",
        "arXiv 2312.15185, section 4.1",
    ),
    "plus-seed": Published(
        "emotion2vec/emotion2vec_plus_seed",
        "iic/emotion2vec_plus_seed",
        93_178_133,
        201,
        "fine-tuned on the labelled academic corpora of EmoBox: scores on those are not held out",
        _NINE,
        _LICENCE,
        "taken to be that of plus-base; its older revisions have 5 labels",
        "model card",
    ),
    "plus-base": Published(
        "emotion2vec/emotion2vec_plus_base",
        "iic/emotion2vec_plus_base",
        93_178_133,
        4_788,
        "fine-tuned on filtered, pseudo-labelled speech; the corpora are not named",
        _NINE,
        _LICENCE,
        "that of the base encoder and 9 labels; agrees with the file's 1.12 GB",
        "model card",
    ),
    "plus-large": Published(
        "emotion2vec/emotion2vec_plus_large",
        "iic/emotion2vec_plus_large",
        162_140_185,
        42_526,
        "fine-tuned on filtered, pseudo-labelled speech; the corpora are not named",
        _NINE,
        _LICENCE,
        "from its settings; agrees with the file's 1.95 GB, though the model card says ~300 M",
        "model card",
    ),
}
"""Short name -> model. None of the files has been seen by this package's tests."""

MINI = "mini"
"""The model that ships in this package."""
MINI_FOLDER = Path(__file__).parent.parent / MINI
EMBEDDED = Published(
    "in this package",
    "in this package",
    2_963_916,
    2,
    "pre-trained without labels on RAVDESS, EmoDB (cut to 2 s) and URDU, fine-tuned on the first "
    "two: acted speech, English and German",
    ("angry", "calm", "disgust", "fear", "happy", "neutral", "sad", "surprise", "unknown"),
    "CC BY-NC-SA 4.0, as RAVDESS, which it learned from; not for commercial use",
    "counted; in half precision",
    "docs/mini.md",
)
"""What `MINI` is."""
NAMES = frozenset({MINI, *PUBLISHED, *(model.repo for model in PUBLISHED.values())})
"""all names of the published models, and of the one that ships in this package"""


class _Fetched(NamedTuple):
    folder: Path
    key: str
    """what the files are, for the cache of conversions: changes with them"""


def fetch(
    name: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    token: str | None = None,
) -> Path:
    """A local folder in this package's format.

    A folder is returned as it is. A repository in our format is downloaded; one in FunASR's or
    data2vec's is downloaded, and converted the first time.

    Args:
        name: a folder; "mini", which is there already; a short name in `PUBLISHED`; "owner/name" on
            the Hugging Face hub; or "modelscope:" before a short name or an "owner/name" there
        revision: branch, tag or commit
        cache_dir: where downloads and conversions are kept; None for those of huggingface_hub
            (HF_HOME) and, for conversions, EMOTION2VEC_CACHE or ~/.cache/emotion2vec
        local_files_only: use what is cached, ask no network
        token: for private repositories

    Raises:
        FileNotFoundError: if there is no such folder or model, or it cannot be reached; the message
            says what to do
        ValueError: if the name stands for something that has to be converted first, or that is no
            model of this family
        ImportError: if "modelscope:" is asked for and modelscope is not installed

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> fetch(folder) == Path(folder)
    True
    """
    if Path(name).exists():
        return _check_local(Path(name))
    text = str(name)
    if text == MINI:
        return MINI_FOLDER
    if text.startswith(MODELSCOPE):
        fetched = _from_modelscope(
            _repository(text.removeprefix(MODELSCOPE), "modelscope"),
            revision, cache_dir, local_files_only, token,
        )  # fmt: skip
    else:
        fetched = _from_hugging_face(
            _repository(text, "repo"), revision, cache_dir, local_files_only, token
        )
    if is_own_format(fetched.folder):
        return fetched.folder
    return _convert_once(text, fetched, cache_dir)


def _check_local(path: Path) -> Path:
    if path.is_dir() and (is_own_format(path) or not weights_names(path)):
        return path
    raise ValueError(
        f"{path} is a published checkpoint, not yet a model of this package; "
        f"run emotion2vec convert {path} OUT and load OUT."
    )


def _repository(name: str, hub: str) -> str:
    """Return the hub's name of a model."""
    if name in PUBLISHED:
        return str(getattr(PUBLISHED[name], hub))
    if "/" not in name:
        raise FileNotFoundError(
            f"{name} is neither a folder, {MINI} nor a published model ({', '.join(PUBLISHED)}); "
            "models on the hub have an owner, owner/name."
        )
    return name


def _from_hugging_face(
    repo: str,
    revision: str | None,
    cache_dir: str | Path | None,
    local_files_only: bool,
    token: str | None,
) -> _Fetched:
    """Download the settings, then the one file of weights that they call for."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import tqdm

    class Silent(tqdm):
        """No bars for settings: they are small, and there each time a model is loaded."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **{**options, "disable": True})

    def download(names: list[str], revision: str | None, progress: Any = None) -> Path:
        try:
            return Path(
                snapshot_download(
                    repo,
                    revision=revision,
                    cache_dir=cache_dir,
                    local_files_only=local_files_only,
                    token=token,
                    allow_patterns=names,
                    tqdm_class=progress,
                )
            )
        except Exception as error:  # the client lets its http library's errors through
            raise _explain(repo, revision, error) from error

    folder = download(list(SETTINGS), revision, Silent)
    commit = folder.name  # the same files now, even if the branch moves meanwhile
    for name in _wanted(repo, folder):
        if not (folder / name).is_file():
            download([name], commit)
        if (folder / name).is_file():
            return _Fetched(folder, f"{repo.replace('/', '--')}/{commit}")
    raise _no_weights(repo, folder)


def _from_modelscope(
    repo: str,
    revision: str | None,
    cache_dir: str | Path | None,
    local_files_only: bool,
    token: str | None,
) -> _Fetched:
    """The same from ModelScope, whose folders do not tell their commit."""
    from modelscope import snapshot_download

    options = {"token": token} if token else {}  # older clients know none

    def download(names: list[str]) -> Path:
        try:
            return Path(
                snapshot_download(
                    repo,
                    revision=revision,
                    cache_dir=None if cache_dir is None else str(cache_dir),
                    local_files_only=local_files_only,
                    allow_patterns=names,
                    **options,
                )
            )
        except Exception as error:  # likewise
            raise FileNotFoundError(
                f"{repo} could not be fetched from ModelScope ({_first_line(error)}); check the "
                f"name and the network, or download it by hand and run emotion2vec convert."
            ) from error

    folder = download(list(SETTINGS))
    for name in _wanted(repo, folder):
        folder = download([name])
        if (folder / name).is_file():
            facts = (folder / name).stat()
            digest = hashlib.sha256(f"{facts.st_size} {facts.st_mtime_ns}".encode()).hexdigest()
            key = f"modelscope--{repo.replace('/', '--')}/{revision or 'master'}-{digest[:16]}"
            return _Fetched(folder, key)
    raise _no_weights(repo, folder)


def _wanted(repo: str, folder: Path) -> tuple[str, ...]:
    names = weights_names(folder)
    if not names:
        raise ValueError(
            f"{repo} is no model of this family: it has neither config.yaml (FunASR) nor a "
            "config.json of emotion2vec or data2vec-audio; `emotion2vec models` lists some."
        )
    return names


def _no_weights(repo: str, folder: Path) -> FileNotFoundError:
    names = " or ".join(weights_names(folder))
    return FileNotFoundError(
        f"{repo} has no {names} on the hub or, offline, in the cache; download once with a network."
    )


def _explain(repo: str, revision: str | None, error: Exception) -> FileNotFoundError:
    """Return one sentence with the cure for what Hugging Face's client raised."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    hub = constants.ENDPOINT
    if isinstance(error, GatedRepoError):
        problem = f"asks for consent first; accept its terms at {hub}/{repo} and pass a token."
    elif isinstance(error, RepositoryNotFoundError):
        problem = (
            f"is neither a folder nor a model on {hub} that is open to you; check the name "
            "(`emotion2vec models` lists the published ones), or pass a token."
        )
    elif isinstance(error, RevisionNotFoundError):
        problem = f"has no revision {revision!r}; {hub}/{repo}/commits/main lists the commits."
    elif isinstance(error, HFValidationError):
        problem = "is neither a folder nor a name on the hub, which has the form owner/name."
    else:
        offline = constants.HF_HUB_OFFLINE or isinstance(error, LocalEntryNotFoundError)
        reason = "it is not in the cache" if offline else _first_line(error)
        problem = (
            f"is neither a folder nor a model that could be fetched from {hub} ({reason}); run "
            "once with a network and without HF_HUB_OFFLINE, set HF_ENDPOINT to a mirror, or get "
            f"{hub}/{repo} by hand and run emotion2vec convert FOLDER OUT."
        )
    return FileNotFoundError(f"{repo} {problem}")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__


def conversions_folder(cache_dir: str | Path | None = None) -> Path:
    """Where converted models are kept; `cache_dir` as in `fetch`.

    >>> conversions_folder("cache").parts[0]
    'cache'
    """
    return Path(cache_dir or cache_folder()).expanduser() / _FORMAT


def _convert_once(name: str, fetched: _Fetched, cache_dir: str | Path | None) -> Path:
    """Return the conversion of a downloaded checkpoint, from the cache if it is there."""
    from filelock import FileLock

    target = conversions_folder(cache_dir) / fetched.key
    if (target / CONVERSION_NAME).is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f".{target.name}.lock")):
        if not (target / CONVERSION_NAME).is_file():  # not made by another process meanwhile
            for leftover in target.parent.glob(f".{target.name}.*"):  # of a killed one
                if leftover.is_dir():
                    shutil.rmtree(leftover, ignore_errors=True)
            conversion = convert_checkpoint(fetched.folder, target)
            logger.info("converted %s, once: %s", name, conversion)
    return target

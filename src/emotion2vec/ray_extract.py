"""Features on a cluster: the rows of `emotion2vec.extract`, computed by a pool of Ray's actors.

The recordings to be done are cut into groups, each a task of Ray Data for one of the actors
(`emotion2vec.ray_actor`), which write the features. Whoever started the run writes the index.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from emotion2vec.addresses import is_address
from emotion2vec.backbones import load_backbone
from emotion2vec.extract import ExtractionSummary, open_index, settings_of, write_index
from emotion2vec.feature_files import ParquetFiles, Row
from emotion2vec.folders import Folder
from emotion2vec.layer_choice import Layer
from emotion2vec.manifest import Record
from emotion2vec.ray_actor import Extractor, Job, packed, told_seconds
from emotion2vec.ray_watch import DeathWatch

GROUP_RECORDS = 1024
GROUP_SECONDS = 7200.0
"""A group has at most so many recordings, or so much sound where lists tell durations: the work
that a killed actor loses, but for the parts it had written."""

GROUPS_AN_ACTOR = 4
"""At least, where there are enough recordings, so that all actors end at about the same time."""

ACTOR_CPUS = 0.9
"""Of each actor: what is left is for Ray Data's own tasks, which would wait for ever if actors held
every processor."""

OBJECT_STORE_BYTES = 128 * 2**20
"""Of a cluster of one's own: features never pass through it."""


def extract_with_ray(
    records: Sequence[Record],
    model: str,
    out: str | Path,
    *,
    layer: Layer = None,
    level: str = "frame",
    dtype: str = "float16",
    batch_seconds: float = 20.0,
    device: str | None = None,
    actors: int | None = None,
    gpus: float | None = None,
    address: str | None = None,
    progress: bool = False,
) -> ExtractionSummary:
    """Write the features of recordings as `extract_to_folder` does as parquet, on a cluster of Ray.

    Either goes on where the other stopped. Every machine must know the recordings, the model and
    `out` by the same names. Killed actors are started anew, and their tasks run again; kill the
    whole run, and the next one goes on. Needs the extra `ray`.

    Args:
        records: what to read
        model: name of the backbone, as in `emotion2vec.backbones.load_backbone`
        out: folder or any fsspec address
        layer: as in `load_backbone`
        level: as in `emotion2vec.extract.extract`
        dtype: of the values in files, "float16" or "float32"
        batch_seconds: as in `extract`
        device: where an actor computes; its GPU where it has one, if None
        actors: processes that compute, on a thread each; as many as processors or GPUs, if None
        gpus: of each actor, such as 0.5; 1 where the cluster has any, if None
        address: of a running cluster, "auto" for the one that this machine belongs to; if None,
            that of RAY_ADDRESS, else a cluster on this machine that ends with the run
        progress: show a bar

    Raises:
        ModuleNotFoundError: without Ray
        OSError: if `out` cannot be written, or read; what is there stays
        RuntimeError: if an actor cannot work
        ValueError: as `extract_to_folder`
    """
    if actors is not None and actors < 1:
        raise ValueError(f"actors is {actors}; give at least 1.")
    import ray  # noqa: F401 (told before anything is written)

    backbone = load_backbone(model, layer=layer, device="cpu")
    settings = settings_of(backbone, level, "parquet", dtype)
    folder = Folder(out if is_address(str(out)) else os.path.abspath(out))
    job = Job(model, layer, device, backbone.fingerprint, str(folder), level, dtype, batch_seconds)
    del backbone  # its memory is the actors'
    with folder.locked():
        return _fill(records, folder, settings, job, (actors, gpus, address), progress)


def _fill(
    records: Sequence[Record],
    folder: Folder,
    settings: dict[str, str],
    job: Job,
    cluster: tuple[int | None, float | None, str | None],
    progress: bool,
) -> ExtractionSummary:
    """Compute what is missing in a folder; `cluster` is actors, GPUs of each, address."""
    actors, gpus, address = cluster
    index, todo = open_index(records, ParquetFiles(folder), folder, settings)
    if not todo:
        return ExtractionSummary(0, len(records), 0)
    try:
        with _cluster(address, actors), tqdm(total=len(todo), disable=not progress) as bar:
            for rows in _run(todo, job, actors, gpus):
                index.update((row["key"], row) for row in rows)
                bar.update(len(rows))
    finally:  # also where the user stops it
        write_index(index, folder)
    failed = sum(bool(index[record.key]["error"]) for record in todo)
    return ExtractionSummary(len(todo) - failed, len(records) - len(todo), failed)


def cut_into_groups(records: Sequence[Record], most: int) -> Iterator[list[Record]]:
    """The records in their order, `most` at a time or `GROUP_SECONDS` of sound, as far as told.

    >>> clips = [Record("a", "a.wav", duration=7000.0), Record("b", "b.wav", end=300.0)]
    >>> [len(group) for group in cut_into_groups([*clips, Record("c", "c.wav")], 8)]
    [1, 2]
    """
    group: list[Record] = []
    seconds = 0.0
    for record in records:
        told = told_seconds(record) or 0.0
        if group and (len(group) == most or seconds + told > GROUP_SECONDS):
            yield group
            group, seconds = [], 0.0
        group.append(record)
        seconds += told
    if group:
        yield group


@contextmanager
def _cluster(address: str | None, actors: int | None) -> Iterator[None]:
    """A connection to the cluster, or one on this machine for as long as the block takes."""
    import ray

    if ray.is_initialized():  # by whoever called us, and his to end
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    _check_answers(address)
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address == "local":
        options["num_cpus"] = actors  # if None, as many as Ray finds that the process may use
        options |= {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    before = os.environ.get("RAY_USAGE_STATS_ENABLED")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # Ray would tell its makers of the run
    try:
        ray.init(address=address, **options)
    finally:
        os.environ.pop("RAY_USAGE_STATS_ENABLED")
        if before is not None:
            os.environ["RAY_USAGE_STATS_ENABLED"] = before
    try:
        yield
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Raise where nobody listens at HOST:PORT: Ray itself would try for ever."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise OSError(
            f"no Ray answers at {address} ({error}); start it there (ray start --head), or leave "
            "the address out for a cluster on this machine."
        ) from error


def _run(
    todo: Sequence[Record], job: Job, actors: int | None, gpus: float | None
) -> Iterator[list[Row]]:
    """Have the recordings computed; yield the lines of a group when it is done."""
    import ray
    import ray.data

    actors, gpus = _pool(ray.cluster_resources(), actors, gpus)
    size = min(GROUP_RECORDS, -(-len(todo) // (actors * GROUPS_AN_ACTOR)))
    groups = [{"records": packed(group)} for group in cut_into_groups(todo, size)]
    watch = (
        ray.remote(DeathWatch).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()
    )
    answers = ray.data.from_items(groups, override_num_blocks=len(groups)).map_batches(
        Extractor,
        fn_constructor_args=(job, watch),
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(
            size=min(actors, len(groups)), max_tasks_in_flight_per_actor=2
        ),
        num_cpus=ACTOR_CPUS,
        num_gpus=gpus or None,
        # Ray Data's own: actors are restarted, and their tasks run again, without end.
    )
    context = answers.context
    context.enable_progress_bars = context.print_on_execution_start = False
    with _quiet():
        for batch in answers.iter_batches(batch_size=None, batch_format="pyarrow"):
            for text in batch["rows"].to_pylist():
                answer = json.loads(text)
                if answer["stop"]:
                    raise RuntimeError(answer["stop"])
                yield answer["rows"]


def _pool(there: Mapping[str, float], actors: int | None, gpus: float | None) -> tuple[int, float]:
    """Return how many actors there shall be, and the GPUs of each."""
    if gpus and not there.get("GPU"):
        raise ValueError(f"gpus is {gpus:g}, and the cluster has no GPU; leave it out.")
    if gpus is None:
        gpus = 1.0 if there.get("GPU") else 0.0
    if actors is None:
        actors = int(there["GPU"] / gpus if gpus else there.get("CPU", 0))
    return max(1, actors), gpus


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray Data's reports on how it runs from the terminal; its files have them."""
    handlers = [h for h in logging.getLogger("ray.data").handlers if hasattr(h, "stream")]
    levels = [handler.level for handler in handlers]
    for handler in handlers:
        handler.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for handler, level in zip(handlers, levels, strict=True):
            handler.setLevel(level)

"""What clients send, read and checked: sound in a form or in JSON, and what they want of it.

No field names a file or an address of the server's: sound comes as bytes or as samples, or not at
all.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Literal, Self, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from emotion2vec.audio import SAMPLE_RATE, Waveform, check_clip, load_audio, read_blocks
from emotion2vec.serving.limits import Limits, RefusedError

_PARSER = ThreadPoolExecutor(1, "parser")

Seconds = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1, max_length=100)]


MOST_SAMPLES = 6_000_000
"""Two minutes at 48 kHz; as a list each takes 32 bytes. Longer sound is better sent as a file."""


class AudioRequest(BaseModel):
    """Sound, in one of two ways."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"minProperties": 1})

    audio: str | None = Field(
        None,
        description="the bytes of a sound file (wav, flac, mp3, ogg, m4a, ...), base64",
        json_schema_extra={"contentEncoding": "base64"},
    )
    samples: list[Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]] | None = Field(
        None, max_length=MOST_SAMPLES, description="samples of one channel, full scale is 1"
    )
    sampling_rate: int = Field(
        SAMPLE_RATE, ge=1000, le=1_000_000, description="of the samples, in Hz"
    )


Kind = TypeVar("Kind", bound=AudioRequest)


class RecognizeRequest(AudioRequest):
    """What `POST /v1/recognize` takes."""

    labels: list[Name] | None = Field(
        None, min_length=1, max_length=200, description="only these; scores are renormalized"
    )
    abstain: float = Field(0.0, ge=0, le=1, description='below this score the label is "unknown"')


class EmbedRequest(AudioRequest):
    """What `POST /v1/embed` takes."""

    level: Literal["utterance", "frame"] = Field(
        "utterance", description="the mean over frames, or a vector every 20 ms"
    )


class TurnRequest(BaseModel):
    """Somebody speaks."""

    model_config = ConfigDict(extra="forbid")

    start: Seconds
    end: Seconds
    speaker: Name | None = None

    @model_validator(mode="after")
    def _forwards(self) -> Self:
        if self.end < self.start:
            raise ValueError("end lies before start")
        return self


class TimelineRequest(AudioRequest):
    """What `POST /v1/timeline` takes."""

    turns: list[TurnRequest] | None = Field(
        None, max_length=10_000, description="who speaks when, instead of detecting speech"
    )
    window_seconds: float | None = Field(None, ge=0.25, le=30)
    hop_seconds: float | None = Field(None, ge=0.1, le=30)
    whole: bool = Field(False, description="label everything, do not look for speech")


def schema_of(kind: type[AudioRequest]) -> dict[str, Any]:
    """The OpenAPI description of a body: a form with a file and fields, or JSON."""
    schema = kind.model_json_schema()
    schema = _inlined(schema, schema.pop("$defs", {}))
    fields = {
        name: field
        for name, field in schema["properties"].items()
        if name not in ("audio", "samples", "sampling_rate")
    }
    file = {"type": "string", "format": "binary", "description": "a sound file"}
    form = {
        "type": "object",
        "properties": {"file": file, **fields},
        "required": ["file"],
        "additionalProperties": False,
    }
    content = {"application/json": {"schema": schema}, "multipart/form-data": {"schema": form}}
    return {"requestBody": {"required": True, "content": content}}


def _inlined(schema: Any, parts: dict[str, Any]) -> Any:
    """Return a schema with what it refers to in its place: OpenAPI keeps such parts elsewhere."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            return _inlined(parts[schema["$ref"].rpartition("/")[2]], parts)
        return {name: _inlined(value, parts) for name, value in schema.items()}
    if isinstance(schema, list):
        return [_inlined(value, parts) for value in schema]
    return schema


class Sound:
    """The sound of a request, not yet decoded: a file's bytes, or samples of one channel."""

    def __init__(self, source: bytes | Waveform, rate: int) -> None:
        self._source, self._rate = source, rate

    def load(self, seconds: float) -> Waveform:
        """The clip (S,) at 16 kHz.

        Raises:
            RefusedError: 413 if it is longer than so many seconds, 422 if it is no sound
        """
        try:
            clip = np.concatenate([*self.blocks(seconds), np.empty(0, np.float32)])
            check_clip(clip, "the sound")
        except (ValueError, OSError) as error:
            raise RefusedError(422, str(error)) from None
        return clip

    def blocks(self, seconds: float) -> Any:
        """Blocks of the sound at 16 kHz; errors as `load`, on the way."""
        blocks: Any
        if isinstance(self._source, bytes):
            if not self._source:
                raise RefusedError(422, "the file is empty (0 bytes); send it again.")
            blocks = read_blocks(self._source, block_seconds=1.0)
        else:
            if len(self._source) > seconds * self._rate:
                raise self._too_long(seconds)
            blocks = [load_audio(self._source, sampling_rate=self._rate, check=False)]
        total = 0
        for block in blocks:
            total += len(block)
            if total > seconds * SAMPLE_RATE:
                raise self._too_long(seconds)
            yield block

    @staticmethod
    def _too_long(seconds: float) -> RefusedError:
        return RefusedError(
            413, f"the sound is longer than {seconds:g} s, which is the limit; cut it."
        )


async def read_request(request: Request, kind: type[Kind], limits: Limits) -> tuple[Kind, Sound]:
    """What a client wants, and the sound it wants it of.

    Raises:
        RefusedError: 408 if the body does not come in time, 413 if it is too large, 415 if it is
            neither a form nor JSON, 400 if it is broken, 422 if something in it is wrong
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in ("application/json", "multipart/form-data"):
        raise RefusedError(
            415,
            f"the body is {media_type or 'of no type'!r}; send multipart/form-data with a field "
            '"file", or application/json.',
        )
    try:
        body = await asyncio.wait_for(_body(request, limits), limits.body_seconds)
    except TimeoutError:
        raise RefusedError(
            408, f"the body did not come within {limits.body_seconds:g} s; send it faster."
        ) from None
    loop = asyncio.get_running_loop()
    # Not in the loop, whom a form of a million lines would hold up; and one at a time, as JSON
    # takes many times its bytes while it is read.
    if media_type == "application/json":
        return await loop.run_in_executor(_PARSER, _from_json, body, kind)
    return await loop.run_in_executor(_PARSER, _from_form, request.headers, body, kind)


async def _body(request: Request, limits: Limits) -> bytes:
    too_large = RefusedError(
        413, f"the body is larger than {limits.megabytes:g} MB, which is the limit."
    )
    told = request.headers.get("content-length", "")
    if told.isdigit() and int(told) > limits.body_bytes:
        raise too_large
    parts, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > limits.body_bytes:
                raise too_large
            parts.append(part)
    except ClientDisconnect:
        raise RefusedError(400, "the body ends before it is complete.") from None
    return b"".join(parts)


def _from_json(body: bytes, kind: type[Kind]) -> tuple[Kind, Sound]:
    asked = _validated(kind, body)
    if (asked.audio is None) == (asked.samples is None):
        raise RefusedError(422, "give either audio (base64) or samples.")
    if asked.samples is not None:
        sound = Sound(np.array(asked.samples, np.float32), asked.sampling_rate)
        asked.samples = None  # eight times as large as the array
        return asked, sound
    try:
        return asked, Sound(base64.b64decode(asked.audio or "", validate=True), SAMPLE_RATE)
    except (binascii.Error, ValueError) as error:
        raise RefusedError(422, f"audio is no base64 ({error}).") from None


def _from_form(headers: Headers, body: bytes, kind: type[Kind]) -> tuple[Kind, Sound]:
    _, options = parse_options_header(headers["content-type"])
    boundary = options.get(b"boundary", b"").decode("latin-1")
    if not boundary or '"' in boundary:
        raise RefusedError(400, "the form is broken (its content-type has no boundary).")
    # With nothing but the boundary: a charset of the client's choice can take hours to decode.
    plain = Headers({"content-type": f'multipart/form-data; boundary="{boundary}"'})

    async def stream() -> AsyncIterator[bytes]:
        yield body

    async def parse() -> tuple[FormData, bytes]:
        parser = MultiPartParser(plain, stream(), max_files=1, max_fields=20, max_part_size=2**20)
        form = await parser.parse()
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise RefusedError(422, 'the form has no file in a field "file".')
        try:
            return form, await file.read()
        finally:
            await form.close()

    try:
        form, data = asyncio.run(parse())
    except (MultiPartException, KeyError, UnicodeError, ValueError) as error:
        reason = getattr(error, "message", None) or error
        raise RefusedError(400, f"the form is broken ({reason}).") from None
    if len(form.getlist("file")) > 1:
        raise RefusedError(422, "the form has several files; send one a request.")
    sound = Sound(data, SAMPLE_RATE)
    fields = {name: _parsed(str(value)) for name, value in form.items() if name != "file"}
    for name in ("audio", "samples", "sampling_rate"):
        if name in fields:
            raise RefusedError(422, f"{name} is for JSON; a form has its sound in the field file.")
    if isinstance(fields.get("labels"), str):  # happy,sad
        fields["labels"] = [name.strip() for name in fields["labels"].split(",")]
    return _validated(kind, fields), sound


def _parsed(value: str) -> Any:
    """A field of a form, which may hold JSON.

    >>> _parsed("0.5"), _parsed("sad"), _parsed('["sad", "happy"]')
    (0.5, 'sad', ['sad', 'happy'])
    """
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _validated(kind: type[Kind], values: bytes | dict[str, Any]) -> Kind:
    try:
        if isinstance(values, bytes):
            return kind.model_validate_json(values)
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        if first["type"] == "json_invalid":
            raise RefusedError(400, f"the body is no JSON ({first['ctx']['error']}).") from None
        place = ".".join(map(str, first["loc"])) or "the body"
        if first["type"] == "extra_forbidden":
            known = ", ".join(kind.model_fields)
            raise RefusedError(422, f"{place} is no field; there are {known}.") from None
        raise RefusedError(422, f"{place}: {first['msg']}.") from None

"""What the service answers, as its OpenAPI document describes it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class ErrorAnswer(BaseModel):
    """Why a request was not answered."""

    error: str = Field(description="one sentence")


class RecognizeAnswer(BaseModel):
    """One recording, one label."""

    label: str | None = Field(description='the most probable, or "unknown"; null without labels')
    score: float | None = Field(description="probability of the most probable label")
    scores: dict[str, float] = Field(description="probability of each label; they sum to 1")
    dimensions: dict[str, float] = Field(description="values such as arousal, of some models")
    policy: str = Field(description="how scores became a label")
    duration: float = Field(description="of the sound, in seconds")
    model: str


class EmbedAnswer(BaseModel):
    """Features."""

    level: str
    width: int
    num_frames: int
    embedding: list[float] | list[list[float]] = Field(
        description="(width,), or at frame level (num_frames, width)"
    )
    duration: float
    model: str


class SegmentAnswer(BaseModel):
    """One emotion, from a start to an end."""

    start: float = Field(description="in seconds")
    end: float
    label: str
    score: float
    scores: dict[str, float]
    speaker: str | None


class TimelineAnswer(BaseModel):
    """The emotions of a recording in time."""

    key: str
    duration: float
    labels: list[str]
    policy: str
    segments: list[SegmentAnswer]
    model: str


class Health(BaseModel):
    """What the service is, and whether it takes requests."""

    status: str = Field(description='"ok", or "draining" (with 503) once it was told to end')
    model: str
    labels: list[str]
    version: str
    in_flight: int


_REASONS = {
    400: "The body is broken.",
    401: "The token is missing or wrong.",
    408: "The body did not come in time.",
    413: "The body or the sound in it is over the limit.",
    415: "The body is neither a form nor JSON.",
    422: "Something in the body is wrong, or it is no sound.",
    500: "The service failed.",
    503: "Too many requests at once; come again after Retry-After seconds.",
    504: "The answer took too long.",
}

REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": text} for status, text in _REASONS.items()
}

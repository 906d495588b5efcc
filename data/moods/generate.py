"""Render the moods set: synthetic emotional speech made with espeak-ng.

Every voice says every sentence in every mood. A mood is prosody: pitch, pitch range and speaking
rate through SSML, and vocal effort as a spectral tilt laid on the speech. All four are drawn per
clip around the mood's centre, wide enough for the moods to overlap; loudness is drawn without a
look at the mood. The draws are seeded by the clip's key, so a rerun gives the same clips.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

import numpy as np
import soundfile
import soxr

SEED = "moods-1"
SAMPLE_RATE = 16000
# Ogg Opus near 25 kbit/s with headers. Even the coarsest Vorbis comes out larger here, with more
# spectral error, as each Vorbis file carries kilobytes of code books and these clips are short.
OPUS_COMPRESSION = 0.945
MAX_RANGE = 200.0  # espeak-ng widens the pitch range no further, whatever is asked
MAX_EDGE_SECONDS = 0.1
PEAK_DB = (-14.0, -1.5)


class Spread(NamedTuple):
    """Centre and standard deviation of one setting."""

    mean: float
    deviation: float


class Mood(NamedTuple):
    """What a mood does to the voice."""

    pitch: Spread  # per cent above the voice's own pitch setting
    pitch_range: Spread  # per cent of the voice's own range
    rate: Spread  # per cent of espeak-ng's 175 words per minute
    tilt: Spread  # decibels per octave, positive is brighter


# The rates lie close together on purpose, or a clip's length alone would tell its mood.
MOODS = {
    "angry": Mood(Spread(20, 12), Spread(150, 35), Spread(115, 9), Spread(2.4, 1.2)),
    "happy": Mood(Spread(55, 12), Spread(165, 30), Spread(112, 9), Spread(0.4, 1.2)),
    "neutral": Mood(Spread(0, 12), Spread(100, 25), Spread(109, 9), Spread(-0.4, 1.2)),
    "sad": Mood(Spread(-35, 12), Spread(40, 20), Spread(103, 9), Spread(-2.4, 1.2)),
}

# en-gb itself is not used: espeak-ng 1.51 silently drops the variant after "en-gb+".
VOICES = {
    "f1": "en-us+f1",
    "f2": "en-gb-x-gbcwmd+f2",
    "f3": "en-gb-x-rp+f3",
    "f4": "en-gb-scotland+f4",
    "f5": "en-029+f5",
    "f6": "en-us-nyc+steph",
    "m1": "en-us+m1",
    "m2": "en-gb-x-gbclan+m2",
    "m3": "en-us+m3",
    "m4": "en-gb-x-gbcwmd+m4",
    "m5": "en-gb-x-rp+m5",
    "m6": "en-us-nyc+m6",
}

TEST_VOICES = (
    ("f1", "m1", "m5"),
    ("f2", "m2", "f5"),
    ("f3", "m3", "m6"),
    ("f4", "m4", "f6"),
)

SENTENCES = (
    "The keys are on the kitchen table.",
    "The train leaves at half past two.",
    "I put the letter in the drawer.",
    "The window faces the garden.",
    "We will meet again on Monday.",
    "The bus stops at the next corner.",
    "They walked along the river.",
    "There are six books on the desk.",
    "The small shop opens at nine.",
    "He left his coat in the hall.",
)


def draw_prosody(mood: Mood, rng: random.Random) -> dict[str, str]:
    """Return the SSML prosody attributes of one clip, jittered around the mood's centre."""
    pitch = round(rng.gauss(*mood.pitch))
    pitch_range = round(min(MAX_RANGE, max(0.0, rng.gauss(*mood.pitch_range))))
    rate = round(rng.gauss(*mood.rate))
    return {"pitch": f"{pitch:+d}%", "range": f"{pitch_range}%", "rate": f"{rate}%"}


def speak(program: str, voice: str, text: str, prosody: dict[str, str]) -> np.ndarray:
    """Return one sentence spoken by espeak-ng, as mono float samples at 16 kHz."""
    attributes = " ".join(f'{name}="{value}"' for name, value in prosody.items())
    ssml = f"<speak><prosody {attributes}>{escape(text)}</prosody></speak>"
    with tempfile.TemporaryDirectory() as folder:
        wave = Path(folder) / "speech.wav"
        # -m reads SSML, -z leaves out the pause after the last sentence.
        command = [program, "-v", voice, "-m", "-z", "-w", str(wave), ssml]
        subprocess.run(command, check=True, timeout=60)
        samples, rate = soundfile.read(wave, dtype="float64")
    return soxr.resample(samples, rate, SAMPLE_RATE, quality="VHQ")


def tilt_spectrum(samples: np.ndarray, slope: float) -> np.ndarray:
    """Return the samples with their spectrum tilted by slope decibels per octave."""
    frequency = np.fft.rfftfreq(len(samples), 1.0 / SAMPLE_RATE)
    # Held flat outside the speech band, where the gain would run away.
    octaves = np.log2(np.clip(frequency, 100.0, 6400.0) / 800.0)
    gain = 10.0 ** (slope * octaves / 20.0)
    return np.fft.irfft(np.fft.rfft(samples) * gain, len(samples))


def trim(samples: np.ndarray, rng: random.Random) -> np.ndarray:
    """Return the samples with a random 0.02 to 0.1 s of silence left at each end."""
    # 34 dB under the peak: lower down, a voice's echo would count as speech.
    loud = np.flatnonzero(np.abs(samples) > 0.02 * np.abs(samples).max())
    head, tail = (int(rng.uniform(0.02, MAX_EDGE_SECONDS) * SAMPLE_RATE) for _ in range(2))
    return samples[max(0, loud[0] - head) : loud[-1] + 1 + tail]


def set_peak(samples: np.ndarray, rng: random.Random) -> np.ndarray:
    """Return the samples scaled to a random peak that knows nothing of the mood."""
    peak = 10.0 ** (rng.uniform(*PEAK_DB) / 20.0)
    return samples * (peak / np.abs(samples).max())


def checksum_table() -> list[int]:
    """Return the 256 byte steps of the Ogg CRC-32, which is neither reflected nor inverted."""
    table = []
    for byte in range(256):
        crc = byte << 24
        for _ in range(8):
            crc = (crc << 1) ^ 0x104C11DB7 if crc & 0x80000000 else crc << 1
        table.append(crc)
    return table


CHECKSUM_TABLE = checksum_table()


def ogg_checksum(page: bytes) -> int:
    """Return the Ogg CRC-32 of a page whose checksum field is zero."""
    crc = 0
    for byte in page:
        crc = ((crc << 8) & 0xFFFFFFFF) ^ CHECKSUM_TABLE[(crc >> 24) ^ byte]
    return crc


def fix_serial(stream: bytes, serial: int) -> bytes:
    """Return the Ogg stream with its random serial number replaced by a fixed one."""
    pages, start = [], 0
    while start < len(stream):
        segments = stream[start + 26]
        table = stream[start + 27 : start + 27 + segments]
        end = start + 27 + segments + sum(table)
        page = bytearray(stream[start:end])
        page[14:18] = struct.pack("<I", serial)
        page[22:26] = bytes(4)
        page[22:26] = struct.pack("<I", ogg_checksum(page))
        pages.append(bytes(page))
        start = end
    return b"".join(pages)


def encode(samples: np.ndarray, serial: int) -> bytes:
    """Return the samples as an Ogg Opus file; equal samples give equal bytes."""
    buffer = io.BytesIO()
    soundfile.write(
        buffer,
        samples,
        SAMPLE_RATE,
        format="OGG",
        subtype="OPUS",
        compression_level=OPUS_COMPRESSION,
    )
    # libsndfile draws the serial number from the clock, which would change every file on a rerun.
    return fix_serial(buffer.getvalue(), serial)


def write_file(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, then rename it, so no half-written file is seen."""
    partial = path.with_name(path.name + ".part")
    partial.write_bytes(data)
    os.replace(partial, path)


def make_clip(program: str, out: Path, speaker: str, mood: str, number: int) -> dict:
    """Write one clip and return its manifest row."""
    key = f"{speaker}-{mood}-{number:02d}"
    text = SENTENCES[number - 1]
    rng = random.Random(f"{SEED}/{key}")
    samples = speak(program, VOICES[speaker], text, draw_prosody(MOODS[mood], rng))
    samples = tilt_spectrum(samples, rng.gauss(*MOODS[mood].tilt))
    data = encode(set_peak(trim(samples, rng), rng), serial=rng.getrandbits(32))
    info = soundfile.info(io.BytesIO(data))
    if (info.samplerate, info.channels) != (SAMPLE_RATE, 1):
        raise SystemExit(f"{key}: encoded as {info.samplerate} Hz, {info.channels} channels")
    write_file(out / "clips" / f"{key}.ogg", data)
    return {
        "key": key,
        "path": f"clips/{key}.ogg",
        "duration": round(info.frames / info.samplerate, 3),
        "speaker": speaker,
        "language": "en",
        "labels": {"emotion": mood},
        "text": text,
    }


def make_folds(rows: list[dict]) -> dict:
    """Return the speaker-independent folds: each voice is tested once, genders mixed."""
    folds = []
    for voices in TEST_VOICES:
        parts = {"train": [], "test": []}
        for row in rows:
            parts["test" if row["speaker"] in voices else "train"].append(row["key"])
        folds.append(parts)
    protocol = {"speaker_independent": True, "source": "made by generate.py", "folds": folds}
    return {"speaker_independent": protocol}


def check_voices(program: str) -> None:
    """Stop with a message where two voices sound alike: an unknown variant is no error."""
    heard = {}
    for speaker, voice in VOICES.items():
        sound = speak(program, voice, SENTENCES[0], {"rate": "100%"}).tobytes()
        if sound in heard:
            raise SystemExit(f"this espeak-ng renders {voice} exactly as {heard[sound]}")
        heard[sound] = VOICES[speaker]


def generate(out: Path, program: str) -> list[dict]:
    """Write clips, manifest.jsonl and folds.json under out and return the manifest rows."""
    check_voices(program)
    (out / "clips").mkdir(parents=True, exist_ok=True)
    rows = [
        make_clip(program, out, speaker, mood, number)
        for speaker in VOICES
        for mood in MOODS
        for number in range(1, len(SENTENCES) + 1)
    ]
    # The index files come last, so that they never name a clip that is not there yet.
    manifest = "".join(json.dumps(row) + "\n" for row in rows)
    write_file(out / "manifest.jsonl", manifest.encode())
    write_file(out / "folds.json", (json.dumps(make_folds(rows), indent=1) + "\n").encode())
    return rows


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(
        description="Render the moods set (synthetic emotional speech) with espeak-ng.",
        epilog="example: python data/moods/generate.py --out data/moods",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="folder that gets clips/, manifest.jsonl and folds.json",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Generate the set and return the exit status."""
    options = parse_arguments(arguments)
    program = shutil.which("espeak-ng")
    if program is None:
        print("generate.py needs the espeak-ng program, which is not on PATH.", file=sys.stderr)
        return 1
    rows = generate(options.out, program)
    seconds = sum(row["duration"] for row in rows)
    print(f"{len(rows)} clips, {seconds:.0f} s of speech in {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

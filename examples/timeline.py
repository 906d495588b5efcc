"""Emotions in time: a recording with pauses, its segments, subtitles of them, and a picture.

python examples/timeline.py data/moods/clips/f1-sad-01.ogg data/moods/clips/m1-angry-01.ogg
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

from emotion2vec import Recognizer, Stream, load_audio, timeline_of
from emotion2vec.segment_files import SEGMENT_FILES
from emotion2vec.timeline import draw_timeline

pause = np.zeros(16_000, np.float32)
blocks = [block for path in sys.argv[1:] for block in (load_audio(path), pause)]
recognizer = Recognizer.from_pretrained()
timeline = timeline_of(blocks, recognizer, key="two clips")
print(SEGMENT_FILES["srt"](timeline))

stream = Stream(recognizer)  # the same, while the sound comes
for block in blocks:
    for segment in stream.push(block):
        print(f"settled: {segment.start:.2f} to {segment.end:.2f} s {segment.label}")
for segment in stream.finish():
    print(f"at the end: {segment.start:.2f} to {segment.end:.2f} s {segment.label}")

picture = Path(tempfile.mkdtemp()) / "timeline.png"
draw_timeline(timeline).savefig(picture)
print(picture)

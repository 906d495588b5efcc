"""Pre-train from Python, on a folder of recordings.

python examples/pretrain.py data/moods/clips runs/mine
"""

import sys
from dataclasses import replace

from emotion2vec.manifest import find_recordings
from emotion2vec.pretraining.config import read_config
from emotion2vec.pretraining.loop import pretrain

config = replace(read_config("configs/pretrain_demo.toml"), max_updates=2, num_workers=0)
result = pretrain(config, find_recordings(sys.argv[1]), sys.argv[2], progress=False)
print(result.model)

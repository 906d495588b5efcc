"""Pre-train from Python, on a folder of recordings, a list, or shards.

python examples/pretrain.py data/moods/clips runs/mine
"""

import sys
from dataclasses import replace

from emotion2vec.pretraining.config import read_config
from emotion2vec.pretraining.loop import pretrain

config = replace(read_config("configs/pretrain_demo.toml"), max_updates=2, num_workers=0)
result = pretrain(config, sys.argv[1], sys.argv[2], progress=False)
print(result.model)

"""Pack recordings into shards, train on them from an address, look one up.

python examples/shards.py data/moods/clips runs/shards
"""

import sys
from dataclasses import replace

from emotion2vec.corpus import open_corpus
from emotion2vec.pack import pack
from emotion2vec.pretraining.config import read_config
from emotion2vec.pretraining.loop import pretrain

source, out = sys.argv[1:]
address = "memory://moods"  # or a folder, s3://bucket/moods, hf://datasets/me/moods
print(pack(source, address, shard_mb=5))
corpus = open_corpus(address)
print(f"{len(corpus)} recordings, {corpus.lengths.sum() / 16000 / 3600:.2f} h")
print("the first:", corpus.name(0)[0], corpus.load(0).shape)
config = read_config("configs/pretrain_demo.toml")
config = replace(config, max_updates=2, num_workers=0, shards_together=2)
print(pretrain(config, address, out, progress=False).model)

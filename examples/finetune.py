"""Fine-tune an encoder on your own labels, and recognize with what comes out.

python examples/finetune.py runs/demo/final data/moods/manifest.jsonl runs/finetuned
"""

import sys

from emotion2vec import Recognizer
from emotion2vec.finetuning.config import FinetuneConfig
from emotion2vec.finetuning.run import finetune
from emotion2vec.manifest import read_manifest

encoder, data, out = sys.argv[1:]
records = read_manifest(data)[::8]  # all of them, for more than a look
config = FinetuneConfig(scope="partial", top_blocks=1, epochs=1, num_workers=0)
result = finetune(encoder, records, out, config)

low, high = result.found["intervals"]["ua"]
print(f"UA {result.found['scores']['ua']:.2f}, 95 % {low:.2f} to {high:.2f}: {result.found['how']}")
print(Recognizer.from_pretrained(result.model)(records[0].path))

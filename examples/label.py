"""Label recordings by a teacher, and keep what it is sure of.

python examples/label.py models/plus-large data/moods/clips runs/labels.jsonl
"""

import sys
from collections import Counter

from emotion2vec.labelling import Rules, judge, labelled, opinions
from emotion2vec.manifest import find_recordings, write_manifest
from emotion2vec.recognize import Recognizer

teacher, clips, out = sys.argv[1:]
rules = Rules(min_score=0.5, min_agreement=0.8)
records = find_recordings(clips)[::40]
found = list(opinions(Recognizer.from_pretrained(teacher), records, views=["whole", "faster"]))
verdicts = judge(found, rules)
print(Counter(verdicts.values()))
write_manifest([labelled(o, rules) for o in found if verdicts[o.record.key] == "kept"], out)

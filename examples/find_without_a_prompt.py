"""Objects in new pictures, without a prompt, as COCO: python find_without_a_prompt.py MODEL PICTURES OUT

MODEL is a specialist folder with a finder, PICTURES a folder. OUT/coco.json opens in CVAT, FiftyOne and others.
"""

import sys
from pathlib import Path

from specialsam import read_image
from specialsam.apps.bridges import find
from specialsam.apps.formats import write_coco
from specialsam.apps.session import open_session

model, pictures, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
session = open_session(model)
files = sorted(path for path in pictures.iterdir() if path.suffix.lower() in (".jpg", ".png", ".tif"))
answers = [find(session, read_image(path), file=path.name) for path in files]
write_coco(answers, out)
print(f"{sum(len(answer.objects) for answer in answers)} objects in {len(answers)} pictures: {out / 'coco.json'}")

"""A specialist for a folder and what it gained: python specialise_a_folder.py FOLDER RUN [--quick]

Tunes the bundled model on images/ and masks/; a run that was stopped goes on. RUN/report.html is the page to read.
--quick only shows that all works: one epoch, no look at what is lost on general images.
"""

import sys

import pandas as pd

from specialsam import specialize

folder, run = sys.argv[1], sys.argv[2]

quick = {"train": {"epochs": 1}, "guard": {"retention": "none"}, "finder": {"epochs": 3, "grid": 0}, "probes": 0}
specialize(folder, "nano", run, quick if "--quick" in sys.argv else {})
table = pd.read_csv(f"{run}/comparison.csv")
for _, row in table[table["metric"] == "iou"].iterrows():
    gain, low, high = (100 * row[name] for name in ("gain", "low", "high"))
    print(f"{row['strategy']}: {gain:+.1f} points of IoU ({low:+.1f} to {high:+.1f}), base {100 * row['base']:.1f} %")

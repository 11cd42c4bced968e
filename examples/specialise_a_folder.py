"""A specialist for a folder of images/ and masks/, and what it gained: python specialise_a_folder.py FOLDER RUN

Tunes the bundled model; a run that was stopped goes on. RUN/report.html is the page to read.
"""

import sys

import pandas as pd

from specialsam import specialize

folder, run = sys.argv[1], sys.argv[2]

specialize(folder, "nano", run, {"train": {"epochs": 1}, "probes": 0})
table = pd.read_csv(f"{run}/comparison.csv")
for _, row in table[table["metric"] == "iou"].iterrows():
    gain, low, high = (100 * row[name] for name in ("gain", "low", "high"))
    print(f"{row['strategy']}: {gain:+.1f} points of IoU ({low:+.1f} to {high:+.1f}), base {100 * row['base']:.1f} %")

"""The page at the end of a run: one HTML file that opens offline and says whether the specialist was worth it."""

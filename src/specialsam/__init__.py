"""Turn the Segment Anything Model into a specialist, and tell the truth about whether it was worth it."""

__version__ = "0.1.0"

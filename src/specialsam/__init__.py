"""Turn the Segment Anything Model into a specialist for a narrow domain, and tell the truth about whether it was worth it."""

__version__ = "0.1.0"

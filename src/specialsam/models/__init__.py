"""Segmenters: the zoo and its checkpoints, nano, encoding and decoding, specialists."""

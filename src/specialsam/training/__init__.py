"""Losses, the tuning loop over stored embeddings, and nano's pre-training."""

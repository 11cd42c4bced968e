"""Encode once, decode often: the store of image embeddings and the loop that fills it."""

from specialsam.embeddings.catalogue import Damage
from specialsam.embeddings.encoding import EmbedReport, Encoder, Price, embed, fleet_price, price, with_objects
from specialsam.embeddings.reading import Failure
from specialsam.embeddings.store import EmbeddingStore, Evicted, Writer, content_key, encoders

__all__ = [
    "Damage",
    "EmbedReport",
    "EmbeddingStore",
    "Encoder",
    "Evicted",
    "Failure",
    "Price",
    "Writer",
    "content_key",
    "embed",
    "encoders",
    "fleet_price",
    "price",
    "with_objects",
]

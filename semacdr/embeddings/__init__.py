"""Texts to vectors, and the whitening that goes with them."""

from semacdr.embeddings.embed import embed, rewhiten
from semacdr.embeddings.encoders import Encoder, EndpointEncoder, LocalEncoder, locate, open_encoder
from semacdr.embeddings.whitening import Whitening, fit_whitening

__all__ = [
    "Encoder",
    "EndpointEncoder",
    "LocalEncoder",
    "Whitening",
    "embed",
    "fit_whitening",
    "locate",
    "open_encoder",
    "rewhiten",
]

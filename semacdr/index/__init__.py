"""FAISS indexes over item vectors: the only package that imports faiss."""

from semacdr.index.build import build
from semacdr.index.reader import ItemIndex, Neighbours, load_index

__all__ = ["ItemIndex", "Neighbours", "build", "load_index"]

"""SemaCDR: cross-domain sequential recommendation from LLM-written item semantics, as an offline pipeline."""

__version__ = "0.1.0"

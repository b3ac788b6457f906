"""Prefect flows over the stages of ``semacdr.pipeline``: one file per flow, and nothing but Prefect here."""

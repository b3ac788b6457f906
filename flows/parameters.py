"""The types of the flows' parameters: Prefect checks them before a run and shows them as a form."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import Field

Dataset = Annotated[str, Field(min_length=1)]
StoreUri = Annotated[str | None, Field(min_length=1)]
Until = date | None
StageName = Literal[
    "ingest",
    "sequences",
    "semantics",
    "embeddings",
    "index",
    "training",
    "evaluation",
    "recommendations",
    "gate",
    "report",
]
Refreshable = Literal["semantics", "training", "evaluation"]

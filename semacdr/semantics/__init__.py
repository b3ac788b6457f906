"""Two texts per item: ``specific`` to its domain and ``agnostic`` of any, written by an LLM behind an HTTP endpoint.

Responses         every answer of every LLM, kept for good
dry_run           what a run would ask, and cost
gather            asks for what is missing, within a budget
answers_digest    what a table will be made of, for its fingerprint
assemble          the ``semantics`` table: imported, generated, or the item's own words
"""

from semacdr.semantics.assemble import answers_digest, assemble
from semacdr.semantics.engine import Answer, Decoding, Endpoints, Engine
from semacdr.semantics.generate import GatherReport, gather
from semacdr.semantics.models import ModelIdentity, has_gpu, identify
from semacdr.semantics.openai_engine import OpenAiEngine
from semacdr.semantics.prompt import Prompt, load_prompt
from semacdr.semantics.resolve import resolve_engine, vllm_python
from semacdr.semantics.responses import Record, Responses
from semacdr.semantics.selection import Plan, dry_run
from semacdr.semantics.vllm_server import ServerSpec, VllmServer

__all__ = [
    "Answer",
    "Decoding",
    "Endpoints",
    "Engine",
    "GatherReport",
    "ModelIdentity",
    "OpenAiEngine",
    "Plan",
    "Prompt",
    "Record",
    "Responses",
    "ServerSpec",
    "VllmServer",
    "answers_digest",
    "assemble",
    "dry_run",
    "gather",
    "has_gpu",
    "identify",
    "load_prompt",
    "resolve_engine",
    "vllm_python",
]

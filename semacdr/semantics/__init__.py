"""Two texts per item: ``specific`` to its domain and ``agnostic`` of any, written by an LLM behind an HTTP endpoint.

Responses         every answer of every LLM, kept for good
select, plan      which items are to be asked, in which order; what that costs
gather            asks for what is missing, within a budget
answers_digest    what a table will be made of, for its fingerprint
assemble          the ``semantics`` table: imported, generated, or the item's own words
"""

from semacdr.semantics.assemble import answers_digest, assemble
from semacdr.semantics.engine import Answer, Decoding, Endpoints, Engine
from semacdr.semantics.generate import GatherReport, gather
from semacdr.semantics.imports import check_files
from semacdr.semantics.models import ModelIdentity, has_gpu, identify
from semacdr.semantics.openai_engine import OpenAiEngine
from semacdr.semantics.prompt import Prompt, load_prompt
from semacdr.semantics.resolve import resolve_engine, vllm_python
from semacdr.semantics.responses import Record, Responses
from semacdr.semantics.selection import Inputs, Plan, plan, select
from semacdr.semantics.vllm_server import ServerSpec, VllmServer

__all__ = [
    "Answer",
    "Decoding",
    "Endpoints",
    "Engine",
    "GatherReport",
    "Inputs",
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
    "check_files",
    "gather",
    "has_gpu",
    "identify",
    "load_prompt",
    "plan",
    "resolve_engine",
    "select",
    "vllm_python",
]

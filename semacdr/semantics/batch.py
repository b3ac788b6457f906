"""OpenAI's batch format, which vLLM's ``run_batch`` takes too: JSONL, one request or one answer a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semacdr.dataset import DatasetConfig
from semacdr.errors import ConfigError
from semacdr.semantics.imports import import_key
from semacdr.semantics.items import decoding_of, words_of
from semacdr.semantics.prompt import clean_item_text, load_prompt
from semacdr.semantics.selection import CHARS_PER_TOKEN, Selection

URL = "/v1/chat/completions"


@dataclass(frozen=True, kw_only=True)
class BatchAnswer:
    """One line of a batch's output."""

    custom_id: str
    text: str = ""
    finish_reason: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    error: str | None = None
    """Why there is no answer."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an export wrote."""

    requests: int
    answered: int
    """Items that have an answer, or texts that were imported."""
    left_out: int
    """Requests beyond the limit."""


def export_requests(
    config: DatasetConfig, selection: Selection, output: Path, model: str, limit: int | None = None
) -> Exported:
    """Write a request for each different item text that has no answer; ``custom_id`` is what an import finds it by.

    Args:
        config: the data set.
        selection: which of its items have no answer, most-interacted first.
        output: the file to write; it is whole or absent.
        model: who is to answer, as the service calls it.
        limit: requests at most; services take some 50,000 a file.
    """
    prompt = load_prompt(config.semantics.prompt)
    chosen = selection.wanted if limit is None else min(limit, selection.wanted)
    words = words_of(config)
    decoding = decoding_of(config)
    partial = output.with_name(f"{output.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        for row in (row for part in selection.texts(stop=chosen) for row in part.iter_rows(named=True)):
            # There is no tokenizer at hand.
            text = clean_item_text(row["text"])[: config.semantics.max_item_tokens * CHARS_PER_TOKEN]
            body = {
                "model": model,
                "messages": prompt.messages(words[row["domain"]], text),
                "temperature": decoding.temperature,
                "max_tokens": decoding.max_tokens,
                "seed": config.semantics.seed,
                "response_format": {"type": "json_schema", "json_schema": {"name": "item", "schema": prompt.schema}},
            }
            line = {
                "custom_id": import_key(row["domain"], row["text_hash"]),
                "method": "POST",
                "url": URL,
                "body": body,
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    partial.replace(output)
    return Exported(
        requests=chosen,
        answered=selection.imported + selection.reused,
        left_out=selection.wanted - chosen,
    )


def read_batch(path: Path) -> Iterator[BatchAnswer]:
    """Yield the answers of a batch's output.

    Raises:
        ConfigError: there is no such file, or a line is no answer.
    """
    if not path.is_file():
        raise ConfigError(f"no file {path}", found="nothing there", do="give the path of the batch's output")
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield _read(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
                raise ConfigError(
                    f"{path}, line {number}: no answer of a batch",
                    found=f"{line.strip():.120}",
                    expected='{"custom_id": ..., "response": {"status_code": 200, "body": {"choices": [...]}}}',
                    do="give the output of the batch, not its requests; a line that was cut can be removed",
                ) from error


def _read(line: dict[str, Any]) -> BatchAnswer:
    custom_id = str(line["custom_id"])
    response = line["response"] or {}
    if line.get("error") or response.get("status_code", 200) != 200:  # noqa: PLR2004 (HTTP's OK)
        return BatchAnswer(custom_id=custom_id, error=str(line.get("error") or response.get("body"))[:500])
    body = response["body"]
    choice = body["choices"][0]
    usage = body.get("usage") or {}
    return BatchAnswer(
        custom_id=custom_id,
        text=choice["message"]["content"] or "",
        finish_reason=choice.get("finish_reason"),
        prompt_tokens=int(usage.get("prompt_tokens") or 0),
        completion_tokens=int(usage.get("completion_tokens") or 0),
    )

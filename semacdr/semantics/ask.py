"""Asks about one item: a first try, a second with another seed when the answer is not fit, and what is kept of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog

from semacdr.dataset import DatasetConfig
from semacdr.errors import EngineError
from semacdr.semantics.accept import UNREADABLE, Texts
from semacdr.semantics.engine import MOST_CHARS_PER_TOKEN, Answer, Engine, RequestRefusedError
from semacdr.semantics.items import words_of
from semacdr.semantics.judge import Judge
from semacdr.semantics.models import ModelIdentity
from semacdr.semantics.prompt import Messages, clean_item_text, load_prompt
from semacdr.semantics.record import Record, utc_now

log = structlog.get_logger()

REPAIR_TEMPERATURE = 0.7
"""Of the second try, at least: at temperature 0 another seed gives the same answer again."""
PROBE_TEXT = "a wooden spoon"
"""Asked when a server refuses an item before it has answered any: tells a bad item from a server that refuses all."""


class Asker:
    """Asks about items one by one, and counts the tokens."""

    def __init__(self, config: DatasetConfig, model: ModelIdentity) -> None:
        self.settings = config.semantics
        self.prompt = load_prompt(config.semantics.prompt)
        self.model = model
        self.prompt_tokens = self.completion_tokens = 0
        self._words = words_of(config)
        self._openings: dict[str, Messages] = {}
        """By domain: a chat without its last turn."""
        self._judge = Judge(self.prompt, config.semantics.audit)
        self._server_answers = False

    async def ask(self, engine: Engine, row: Mapping[str, Any]) -> Record:
        """Return the record of one item: row has domain, item_id, title, text, text_hash and key.

        Raises:
            EngineError: see ``Engine``; or the server refuses every request.
            TransientError: see ``Engine``.
        """
        most = self.settings.max_item_tokens
        text = await engine.cut(clean_item_text(row["text"][: most * MOST_CHARS_PER_TOKEN]), most)
        if not text:
            return self._record(row, "no readable text", None)
        messages = self._chat(row["domain"], text)
        answers: list[Answer] = []
        verdict: Texts | str = ""
        last: Answer | None = None
        try:
            for seed, temperature in (
                (self.settings.seed, self.settings.temperature),
                (self.settings.seed + 1, max(self.settings.temperature, REPAIR_TEMPERATURE)),
            ):
                answers.append(await self._generate(engine, messages, seed, temperature))
                judged = self._judge.verdict(answers[-1].text, answers[-1].finish_reason, row["title"], row["text"])
                # One that cannot be read does not replace one that broke a rule: a text of that may be of use.
                if last is None or judged not in UNREADABLE:
                    verdict, last = judged, answers[-1]
                if isinstance(verdict, Texts):
                    break
        except RequestRefusedError as error:
            if not self._server_answers:
                await self._probe(engine, row["domain"], error)
            log.warning("item refused", domain=row["domain"], item_id=row["item_id"], error=str(error))
            verdict = verdict or "refused by the server"
        return self._record(row, verdict, last, answers)

    async def _probe(self, engine: Engine, domain: str, refusal: RequestRefusedError) -> None:
        """Raise EngineError if the server refuses a harmless item, too."""
        try:
            await self._generate(engine, self._chat(domain, PROBE_TEXT), self.settings.seed, self.settings.temperature)
        except RequestRefusedError as error:
            room = f"{self.settings.max_item_tokens} tokens of an item and {self.settings.max_tokens} of the answer"
            raise EngineError(
                "the LLM server refuses every request",
                found=error.found,
                expected=f"a server that takes the prompt's JSON schema, and a context that holds the prompt, {room}",
                do="raise llm.max_model_len, lower semantics.max_tokens, or use another server",
            ) from refusal

    def _chat(self, domain: str, text: str) -> Messages:
        if domain not in self._openings:
            self._openings[domain] = self.prompt.messages(self._words[domain], "")[:-1]
        return [*self._openings[domain], self.prompt.turn(self._words[domain], text)]

    async def _generate(self, engine: Engine, messages: Messages, seed: int, temperature: float) -> Answer:
        answer = await engine.generate(messages, self.prompt.schema, seed, temperature)
        self._server_answers = True
        self.prompt_tokens += answer.prompt_tokens
        self.completion_tokens += answer.completion_tokens
        return answer

    def _record(
        self, row: Mapping[str, Any], verdict: Texts | str, last: Answer | None, answers: list[Answer] | None = None
    ) -> Record:
        texts = verdict if isinstance(verdict, Texts) else None
        return Record(
            key=row["key"],
            status="ok" if texts else "failed",
            reason=None if texts else str(verdict),
            model=self.model.name,
            revision=self.model.revision,
            prompt=self.prompt.reference,
            text_hash=row["text_hash"],
            specific=texts.specific if texts else None,
            agnostic=texts.agnostic if texts else None,
            fields=texts.fields if texts else None,
            raw=last.text if last else "",
            prompt_tokens=last.prompt_tokens if last else 0,
            completion_tokens=last.completion_tokens if last else 0,
            finish_reason=last.finish_reason if last else None,
            calls=len(answers or ()),
            spent_tokens=sum(answer.prompt_tokens + answer.completion_tokens for answer in answers or ()),
            seconds=round(sum(answer.seconds for answer in answers or ()), 3),
            created_at=utc_now(),
        )

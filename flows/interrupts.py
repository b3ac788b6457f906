"""Ctrl-C in a terminal where a flow runs."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C end the flows of the block at once.

    It ends the server that Prefect starts where none is named, too, and a flow would call that for a minute, to say how
    it ended, and fail with what it heard.

    Raises:
        KeyboardInterrupt: it was pressed.
    """
    has_server = bool(PREFECT_API_URL.value())

    def interrupt(*_: object) -> None:
        if not has_server:
            stack.enter_context(temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}))
        raise KeyboardInterrupt

    with ExitStack() as stack:
        before = signal.signal(signal.SIGINT, interrupt)
        try:
            yield
        except Exception as error:
            if _is_after_interrupt(error):
                raise KeyboardInterrupt from None
            raise
        finally:
            signal.signal(signal.SIGINT, before)


def _is_after_interrupt(error: BaseException) -> bool:
    while error.__context__ is not None:
        error = error.__context__
        if isinstance(error, KeyboardInterrupt):
            return True
    return False

"""Errors, named by their consequence.

    SemacdrError            exit 1
    ├── ConfigError         exit 2   a setting, data set file or argument is wrong; nothing has been run
    ├── DataError           exit 2   the data do not hold what the stage needs; the stage fails, nothing is published
    ├── StoreError          exit 1   the store cannot be read or written, or holds something broken
    │   └── AbsentError     exit 1   the store does not hold what was asked for
    ├── EngineError         exit 1   an LLM or embedding engine cannot do its work
    └── TransientError      exit 1   may pass by itself: the only error that Prefect retries

Every message says what is wrong and where, what was found, what was expected, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MAX_EXAMPLES = 5


class SemacdrError(Exception):
    """An error that its reader can act on.

    Args:
        what: what is wrong, and where.
        found: what is there.
        expected: what should be there.
        do: what the reader can do about it.
    """

    exit_code = 1

    def __init__(self, what: str, *, found: object = None, expected: object = None, do: str = "") -> None:
        parts = (("found", found), ("expected", expected), ("do", do or None))
        lines = [what] + [f"  {label + ':':<10}{value}" for label, value in parts if value is not None]
        super().__init__("\n".join(lines))
        self.what = what
        self.found = found
        self.expected = expected
        self.do = do

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive the default pickling, and Prefect pickles exceptions.
        return _rebuild, (type(self), self.what, self.found, self.expected, self.do)


def _rebuild(kind: type[SemacdrError], what: str, found: object, expected: object, do: str) -> SemacdrError:
    return kind(what, found=found, expected=expected, do=do)


class ConfigError(SemacdrError):
    """A setting, a data set file or an argument is wrong; found before any work starts."""

    exit_code = 2


class DataError(SemacdrError):
    """The data do not hold what the stage needs; the stage fails and publishes nothing."""

    exit_code = 2


class StoreError(SemacdrError):
    """The store cannot be read or written, or something in it is broken."""


class AbsentError(StoreError):
    """The store does not hold what was asked for."""


class EngineError(SemacdrError):
    """An LLM or embedding engine cannot do its work."""


class TransientError(SemacdrError):
    """A fault that may pass by itself, such as a broken connection."""


def examples(values: Iterable[object]) -> str:
    """Return at most ``MAX_EXAMPLES`` of the values as one readable list."""
    listed = [str(value) for value in values]
    more = f", and {len(listed) - MAX_EXAMPLES} more" if len(listed) > MAX_EXAMPLES else ""
    return ", ".join(listed[:MAX_EXAMPLES]) + more


def close_names(name: str, known: Iterable[str]) -> str:
    """Return ``did you mean 'x'?``, or the known names when none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return "did you mean " + " or ".join(repr(match) for match in near) + "?"
    return "known: " + (", ".join(known) or "none")

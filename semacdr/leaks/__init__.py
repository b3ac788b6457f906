"""The leak linter: does anything that a model is fitted or chosen on know what comes after the cut?

It runs before every training. What no model may be trained on is refused; what flatters the results without being a
fault of this run is a warning, in the log, in the manifest and beside the results.
"""

from semacdr.leaks.lint import Finding, Verdict, as_json, check_candidates, check_split, lint
from semacdr.leaks.texts import WrittenTexts, written_texts

__all__ = ["Finding", "Verdict", "WrittenTexts", "as_json", "check_candidates", "check_split", "lint", "written_texts"]

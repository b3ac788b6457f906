"""The report: one self-contained HTML page about an evaluation and the model behind it.

A page is one JSON document and the script that draws it: the sections here are what goes into that document.
"""

from semacdr.reports.stage import report

__all__ = ["report"]

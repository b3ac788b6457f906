"""Comparisons: models, floors and ablations under one protocol, and what separates them beyond chance."""

from semacdr.comparison.evaluate import Request, alias_of, evaluate_row
from semacdr.comparison.report import report_on
from semacdr.comparison.rows import SWITCHES, Row, find_row, known_rows
from semacdr.comparison.score import Predictions, score
from semacdr.comparison.table import Comparison, compare, demand_alike, figures, per_target
from semacdr.comparison.transfer import CONTROLS, Report, transfer_report
from semacdr.comparison.tuning import row_of, tune_row

__all__ = [
    "CONTROLS",
    "SWITCHES",
    "Comparison",
    "Predictions",
    "Report",
    "Request",
    "Row",
    "alias_of",
    "compare",
    "demand_alike",
    "evaluate_row",
    "figures",
    "find_row",
    "known_rows",
    "per_target",
    "report_on",
    "row_of",
    "score",
    "transfer_report",
    "tune_row",
]

"""``docs/tables.md`` and the golden file of contracts, both made from ``tables.py`` (``make docs``)."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dataframely as dy

from semacdr.errors import DataError
from semacdr.tables import CONTRACT_VERSIONS, FILES, RESPONSES, TABLES, SemanticsResponses, Table, Vector

Contracts = dict[str, dict[str, Any]]
"""Artifact -> ``version`` and ``tables``: table -> ``key``, ``sort_order``, ``rules`` and ``columns``."""

_ROOT = Path(__file__).resolve().parent.parent
DOCS = _ROOT / "docs" / "tables.md"
GOLDEN = _ROOT / "tests" / "golden" / "contracts.json"
_LIMITS = ("min", "max", "min_length", "max_length", "regex")
_HEAD = """\
# Tables

Every artifact of the store, and the columns of its tables. Made from `semacdr/tables.py` by `make docs`; a test fails
when it is not current.

Each table is Parquet: `<table>.parquet`, or the Parquet files below `<table>/`. It is checked against this contract
before it is published: columns, types, nulls, keys, rules and the order of rows, within each file.

The **contract version** of an artifact stands in its manifest. A new column that may be null leaves it as it is: for
artifacts from before, Python readers give the column as null. Any other change raises it, and a reader refuses
artifacts of another contract version.
"""


def contracts() -> Contracts:
    """Return what readers rely on, as JSON values; descriptions are left out."""
    return {
        artifact: {
            "version": CONTRACT_VERSIONS[artifact],
            "tables": {table: _contract(schema) for table, schema in schemas.items()},
        }
        for artifact, schemas in TABLES.items()
    }


def incompatible_changes(before: Contracts, after: Contracts) -> list[str]:
    """Return what a reader of the old contracts would stumble over; empty where the version has been raised for it."""
    return [
        f"{artifact}: {change}"
        for artifact, old in before.items()
        for change in _artifact_changes(old, after.get(artifact))
    ]


def tables_markdown() -> str:
    """Return the text of ``docs/tables.md``."""
    sections = [_section(artifact, schemas) for artifact, schemas in TABLES.items()]
    sections.append("\n".join([f"## {RESPONSES}", "", *_table_lines(RESPONSES, SemanticsResponses, named=False)]))
    return "\n".join([_HEAD, *sections])


def write_docs(docs: Path = DOCS, golden: Path = GOLDEN) -> None:
    """Write both files anew.

    Raises:
        DataError: a contract has changed and its version has not; nothing is written.
    """
    now = contracts()
    before = json.loads(golden.read_text(encoding="utf-8")) if golden.exists() else {}
    changes = incompatible_changes(before, now)
    if changes:
        raise DataError(
            "semacdr/tables.py: contracts have changed in ways that break readers",
            found="\n            ".join(changes),
            expected="new columns that may be null, or the next number in CONTRACT_VERSIONS",
            do="take the change back, or raise the artifact's number in CONTRACT_VERSIONS",
        )
    golden.write_text(json.dumps(now, indent=2) + "\n", encoding="utf-8")
    docs.write_text(tables_markdown(), encoding="utf-8")


def _contract(schema: type[Table]) -> dict[str, Any]:
    return {
        "key": schema.primary_key(),
        "sort_order": list(schema.sort_order),
        "rules": [name for name, _ in _rules(schema)],
        "columns": {
            name: {"type": _type(column), "nullable": column.nullable, **_limits(column)}
            for name, column in schema.columns().items()
        },
    }


def _artifact_changes(old: Mapping[str, Any], new: Mapping[str, Any] | None) -> Iterator[str]:
    if new is None:
        yield "is gone"
        return
    if new["version"] > old["version"]:
        return
    if new["version"] < old["version"]:
        yield f"contract version fell from {old['version']} to {new['version']}"
    for table, before in old["tables"].items():
        after = new["tables"].get(table)
        if after is None:
            yield f"table {table} is gone"
            continue
        yield from (f"{table}: {change}" for change in _table_changes(before, after))


def _table_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for part in ("key", "sort_order", "rules"):
        if old[part] != new[part]:
            yield f"{part} was {old[part]}, is {new[part]}"
    for name, before in old["columns"].items():
        after = new["columns"].get(name)
        if after is None:
            yield f"column {name} is gone"
        elif after != before:
            yield f"column {name} was {before}, is {after}"
    for name, column in new["columns"].items():
        if name not in old["columns"] and not column["nullable"]:
            yield f"new column {name} may not be null, and older artifacts lack it"


def _type(column: dy.Column) -> str:
    if isinstance(column, Vector):
        return "fixed-size list of float32"
    if isinstance(column, dy.Enum):
        return "one of " + ", ".join(column.categories)
    if isinstance(column, dy.List):
        return f"list of {_type(column.inner)}"
    if isinstance(column, dy.Struct):
        return "struct of " + ", ".join(f"{name} ({_type(inner)})" for name, inner in column.inner.items())
    return str(column.dtype).lower()


def _limits(column: dy.Column) -> dict[str, Any]:
    found = {name: getattr(column, name, None) for name in _LIMITS}
    return {name: value for name, value in found.items() if value is not None}


def _rules(schema: type[Table]) -> list[tuple[str, str]]:
    """Return name and docstring of the rules over more than one column."""
    functions = ((name, getattr(value, "validation_fn", None)) for name, value in vars(schema).items())
    return [(name, inspect.getdoc(function) or "") for name, function in functions if function is not None]


def _section(artifact: str, schemas: Mapping[str, type[Table]]) -> str:
    lines = [f"## {artifact}", "", f"Contract version {CONTRACT_VERSIONS[artifact]}.", ""]
    for table, schema in schemas.items():
        lines += _table_lines(table, schema, named=list(schemas) != [artifact])
    if artifact in FILES:
        lines += ["Beside it:", "", *(f"- `{file}`: {holds}" for file, holds in FILES[artifact].items()), ""]
    return "\n".join(lines)


def _table_lines(table: str, schema: type[Table], *, named: bool) -> list[str]:
    lines = [f"### {table}", ""] if named else []
    lines += [
        (inspect.getdoc(schema) or "").replace("``", "`"),
        "",
        "| column | type | null | description |",
        "| --- | --- | --- | --- |",
    ]
    for name, column in schema.columns().items():
        key = " (key)" if column.primary_key else ""
        null = "may be null" if column.nullable else "never"
        lines.append(f"| `{name}`{key} | {_type(column)} | {null} | {_description(column)} |")
    lines.append("")
    facts = [text for _, text in _rules(schema)]
    if schema.sort_order:
        facts.append("Sorted by " + ", ".join(f"`{name}`" for name in schema.sort_order) + ".")
    return [*lines, *(f"- {fact.replace('``', '`')}" for fact in facts), *([""] if facts else [])]


def _description(column: dy.Column) -> str:
    words = {"min": "at least {}", "max": "at most {}", "min_length": "{} or longer", "max_length": "at most {} long"}
    limits = [words.get(name, name + " {}").format(value) for name, value in _limits(column).items()]
    said = [column.description or "", *("not empty" if limit == "1 or longer" else limit for limit in limits)]
    return "; ".join(part for part in said if part)


if __name__ == "__main__":
    write_docs()

"""Writes the examples' lists of items whose reference texts are not taken in: `python examples/not_imported.py`.

The texts were written for items with five or more events over the whole log, so having one tells which items will be
popular. With at least five events that no split hides, an item had its text anyway: the others' texts are left out.
Hidden are events from a data set's validation cut on (``gts``), and the last two of each user (``loo``).
"""

from __future__ import annotations

from pathlib import Path

import duckdb

EXAMPLES = Path(__file__).parent
FULL, MINI = EXAMPLES / "amazon-food-kitchen", EXAMPLES / "amazon-food-kitchen-mini"
DOMAINS = {"Grocery_and_Gourmet_Food": "food", "Home_and_Kitchen": "kitchen"}
LEAST_EVENTS = 5
VALIDATION_QUANTILE = 0.8
"""The default of ``split.validation_quantile``, which both data sets use."""
LATE = "# Of these items the reference texts tell the future (written by examples/not_imported.py)."
LIVE = "# Left to the live engine, so that a demo always has real work."

_EVENTS = """
create table {name} as
select distinct '{domain}' as domain, reviewerID as user_id, asin as item_id, unixReviewTime as time_s
from read_json('{file}', format = 'newline_delimited')
"""
_HIDDEN = """
create view {name}_visible as
select domain, user_id, item_id, time_s
from {name}
qualify
    row_number() over (partition by user_id order by time_s desc, domain desc, item_id desc) > 2
    and time_s < (select quantile_disc(time_s, {quantile}) from {name})
"""
_LATE = """
with counted as (
    select domain, item_id, count(*) as num_events
    from whole_visible
    where time_s < (select max(time_s) from mini_visible)
    group by all
)
select texts.domain, texts.item_id
from texts left join counted using (domain, item_id)
where coalesce(num_events, 0) < {least}
order by all
"""


def main() -> None:
    """Write both lists."""
    connection = duckdb.connect()
    for name, folder in (("whole", FULL), ("mini", MINI)):
        parts = [
            _EVENTS.format(name="part", domain=ours, file=folder / f"reviews_{theirs}.jsonl.gz")
            for theirs, ours in DOMAINS.items()
        ]
        for number, part in enumerate(parts):
            connection.execute(part.replace("table part", f"table {name}_{number}"))
        connection.execute(f"create table {name} as from {name}_0 union all from {name}_1")
        connection.execute(_HIDDEN.format(name=name, quantile=VALIDATION_QUANTILE))
    names = " ".join(f"when '{theirs}' then '{ours}'" for theirs, ours in DOMAINS.items())
    reference = FULL / "reference_semantics.parquet"
    connection.execute(f"create table texts as select case domain {names} end as domain, item_id from '{reference}'")
    late = connection.execute(_LATE.format(least=LEAST_EVENTS)).fetchall()
    lines = [LATE, *(f"{domain}\t{item_id}" for domain, item_id in late)]
    (FULL / "not_imported.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    mini = MINI / "not_imported.tsv"
    old = mini.read_text(encoding="utf-8").split(LATE)[0].splitlines()
    live = [line for line in old if line and not line.startswith("#")]
    mini.write_text("\n".join([LIVE, *live, *lines]) + "\n", encoding="utf-8")
    print(f"{len(late):,} of {connection.table('texts').count('*').fetchall()[0][0]:,} texts are left out")


if __name__ == "__main__":
    main()

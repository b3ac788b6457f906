-- One row per artifact version and reason for which rows were left out.
-- Run: semacdr sql sql/examples/what_was_dropped.sql
with reasons as (
    select
        artifacts.dataset,
        artifacts.name,
        artifacts.version,
        artifacts.rows_in,
        artifacts.dropped_by_reason,
        unnest(json_keys(artifacts.dropped_by_reason)) as reason
    from artifacts
)

select
    reasons.dataset,
    reasons.name,
    reasons.version,
    reasons.reason,
    json_extract(reasons.dropped_by_reason, '$."' || reasons.reason || '"')::bigint as num_rows,
    reasons.rows_in
from reasons
order by reasons.dataset asc, reasons.name asc, reasons.version asc, reasons.reason asc

-- One row per accepted record of one domain, by user, time and item: those of one event stand
-- together, in any order, for with a longer key DuckDB sorts in twice the time.
select
    interactions_raw.user_id,
    interactions_raw.item_id,
    interactions_raw.timestamp_s,
    interactions_raw.rating,
    interactions_raw.file_number,
    interactions_raw.line
from interactions_raw
where interactions_raw.reason is null
order by interactions_raw.user_id, interactions_raw.timestamp_s, interactions_raw.item_id

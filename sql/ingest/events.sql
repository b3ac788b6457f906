-- One row per accepted event of one domain, each once.
create or replace view events as
select
    interactions_raw.user_id,
    interactions_raw.item_id,
    interactions_raw.timestamp_s,
    interactions_raw.rating
from interactions_raw
left join duplicate_events
    on
        interactions_raw.file_number = duplicate_events.file_number
        and interactions_raw.line = duplicate_events.line
where
    interactions_raw.reason is null
    and duplicate_events.line is null

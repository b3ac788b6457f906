-- One row per accepted record with the user, item and time of an earlier one (by file, line).
create or replace table duplicate_events as
select
    interactions_raw.file_number,
    interactions_raw.line,
    interactions_raw.user_id,
    interactions_raw.item_id,
    interactions_raw.timestamp_s
from interactions_raw
where interactions_raw.reason is null
qualify
    row_number() over (
        partition by
            interactions_raw.user_id, interactions_raw.item_id, interactions_raw.timestamp_s
        order by interactions_raw.file_number, interactions_raw.line
    ) > 1

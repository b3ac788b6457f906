-- One row: how many records of some files there are, and how many have a value in each column.
-- Parameters: $file_ids.
select
    count(*) as num_records,
    count(interactions_raw.user_id) as user_id,
    count(interactions_raw.item_id) as item_id,
    count(interactions_raw.timestamp_s) as "timestamp", -- noqa: RF06
    count(interactions_raw.rating) as rating
from interactions_raw
where list_contains($file_ids, interactions_raw.file_number)

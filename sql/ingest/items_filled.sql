-- One row: how many records of some files there are, and how many have a value in each column.
-- Parameters: $file_ids.
select
    count(*) as num_records,
    count(items_raw.item_id) as item_id,
    count(items_raw.title) as title,
    count(items_raw.brand) as brand,
    count(items_raw.categories) as categories,
    count(items_raw.description) as description,
    count(items_raw.price) as price
from items_raw
where list_contains($file_ids, items_raw.file_number)

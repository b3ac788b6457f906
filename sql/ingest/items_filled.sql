-- One row per file with records: how many have a value in each column.
select
    items_raw.file_number,
    count(*) as num_records,
    count(items_raw.item_id) as item_id,
    count(items_raw.title) as title,
    count(items_raw.brand) as brand,
    count(items_raw.categories) as categories,
    count(items_raw.description) as description,
    count(items_raw.price) as price
from items_raw
group by items_raw.file_number
order by items_raw.file_number

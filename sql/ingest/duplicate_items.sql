-- One row per accepted item record whose item has an earlier one (by file, line).
create or replace table duplicate_items as
select
    items_raw.file_number,
    items_raw.line,
    items_raw.item_id,
    items_raw.title
from items_raw
where items_raw.reason is null
qualify
    row_number() over (
        partition by items_raw.item_id
        order by items_raw.file_number, items_raw.line
    ) > 1

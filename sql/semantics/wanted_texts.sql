-- Some of the wanted texts, in the order of asking.
-- Reads: wanted, items.
-- Parameters: $start, $stop: places in that order.
with chosen as (
    select
        wanted.rowid as place,
        wanted.domain,
        wanted.item_id,
        wanted.key
    from wanted
    where wanted.rowid >= $start and wanted.rowid < $stop
)

select
    chosen.domain,
    chosen.item_id,
    chosen.key,
    items.title,
    items.text,
    items.text_hash
from chosen
inner join items on chosen.domain = items.domain and chosen.item_id = items.item_id
order by chosen.place

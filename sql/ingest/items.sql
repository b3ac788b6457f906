-- One row per item of one domain, in the log or in the item files; the texts are still raw.
-- Parameters: $events_file, the domain's accepted events; $logged_only (a catalogue without dates
-- would tell what came later).
with logged as (
    select
        events.item_id,
        count(*) as num_events
    from read_parquet($events_file, hive_partitioning = false) as events
    group by events.item_id
),

described as (
    select
        items_raw.item_id,
        items_raw.title,
        items_raw.brand,
        items_raw.categories,
        items_raw.description,
        items_raw.price
    from items_raw
    left join duplicate_items
        on
            items_raw.file_number = duplicate_items.file_number
            and items_raw.line = duplicate_items.line
    where
        items_raw.reason is null
        and duplicate_items.line is null
)

select
    described.title,
    described.brand,
    described.categories,
    described.description,
    described.price,
    coalesce(described.item_id, logged.item_id) as item_id,
    described.item_id is not null as has_metadata,
    coalesce(logged.num_events, 0) as num_events
from described
full outer join logged on described.item_id = logged.item_id
where logged.item_id is not null or not $logged_only
order by coalesce(described.item_id, logged.item_id)

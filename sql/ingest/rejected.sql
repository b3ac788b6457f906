-- One row per raw record of one domain that was not accepted; a duplicate is shown by its columns.
-- Parameters: $domain_name.
insert into rejected
with both_tables as (
    select
        'interactions' as table_name,
        event_rejects.file_number,
        event_rejects.line,
        event_rejects.reason,
        event_rejects.record
    from event_rejects
    union all by name
    select
        'items' as table_name,
        items_raw.file_number,
        items_raw.line,
        items_raw.reason,
        items_raw.record
    from items_raw
    where items_raw.reason is not null
    union all by name
    select
        'items' as table_name,
        duplicate_items.file_number,
        duplicate_items.line,
        'duplicate item' as reason,
        cast(
            json_object('item_id', duplicate_items.item_id, 'title', duplicate_items.title)
            as varchar
        ) as record
    from duplicate_items
),

placed as (
    select
        both_tables.table_name,
        files.file_path,
        both_tables.line,
        both_tables.reason,
        both_tables.record
    from both_tables
    inner join files
        on
            both_tables.table_name = files.table_name
            and both_tables.file_number = files.file_number
)

select
    placed.table_name,
    $domain_name as domain, -- noqa: RF04
    placed.file_path,
    placed.line,
    placed.reason,
    left(placed.record, 500) as record
from placed

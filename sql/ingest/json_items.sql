-- One row per JSON record: an item's fields as text, arrays as JSON.
-- Reads: json_records.
-- Variables: paths, JSON pointers of the mapped fields; positions, column -> its place in paths
-- (null when unmapped).
create or replace temp view fields as
select
    json_records.file_number,
    json_records.line,
    json_records.record,
    json_records.fault,
    identity(
        json_records.found[getvariable('positions').item_id],
        json_records.text,
        getvariable('paths')[getvariable('positions').item_id]
    ) as item_id,
    json_records.found[getvariable('positions').title] as title,
    json_records.found[getvariable('positions').brand] as brand,
    json_records.found[getvariable('positions').categories] as categories,
    json_records.found[getvariable('positions').description] as description,
    json_records.found[getvariable('positions').price] as price
from json_records

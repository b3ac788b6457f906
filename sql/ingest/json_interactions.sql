-- One row per JSON record: the fields of an interaction as text.
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
        json_records.found[getvariable('positions').user_id],
        json_records.text,
        getvariable('paths')[getvariable('positions').user_id]
    ) as user_id,
    identity(
        json_records.found[getvariable('positions').item_id],
        json_records.text,
        getvariable('paths')[getvariable('positions').item_id]
    ) as item_id,
    json_records.found[getvariable('positions').timestamp] as timestamp, -- noqa: RF04
    json_records.found[getvariable('positions').rating] as rating
from json_records

-- One row per line of a JSONL file that is not blank: the fields of an interaction as text.
-- Reads: lines, a stream that can be read only once; hence a view, which takes no $parameters.
-- Variables: paths, JSON pointers of the mapped fields; positions, column -> its place in paths
-- (null when unmapped).
create or replace temp view fields as
with extracted as (
    select
        lines.*,
        -- Null for what is no JSON.
        try(json_extract_string(lines.text, getvariable('paths'))) as found
    from lines
    where starts_with(lines.text, '{') or coalesce(trim(lines.text, e' \t\r\n') <> '', true)
)

select
    extracted.file_number,
    extracted.line,
    coalesce(extracted.record, extracted.text) as record,
    coalesce(
        extracted.fault,
        case
            when extracted.found is null then 'malformed json'
            when starts_with(extracted.text, '{') then null
            when not starts_with(ltrim(extracted.text, e' \t\r\n'), '{') then 'not a json object'
        end
    ) as fault,
    identity(
        extracted.found[getvariable('positions').user_id],
        extracted.text,
        getvariable('paths')[getvariable('positions').user_id]
    ) as user_id,
    identity(
        extracted.found[getvariable('positions').item_id],
        extracted.text,
        getvariable('paths')[getvariable('positions').item_id]
    ) as item_id,
    extracted.found[getvariable('positions').timestamp] as timestamp, -- noqa: RF04
    extracted.found[getvariable('positions').rating] as rating
from extracted

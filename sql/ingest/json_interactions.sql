-- One row per line of a JSONL file that is not blank: the fields of an interaction as text.
-- Reads: lines, a stream that can be read only once; hence a view, which takes no $parameters.
-- Variables: paths, JSON pointers of the mapped fields; positions, column -> its place in paths
-- (null when unmapped).
create or replace temp view fields as
with judged as (
    select
        lines.line,
        lines.text,
        coalesce(lines.record, lines.text) as record,
        coalesce(
            lines.fault,
            case
                when not json_valid(lines.text) then 'malformed json'
                when not starts_with(ltrim(lines.text, e' \t\r\n'), '{') then 'not a json object'
            end
        ) as fault
    from lines
    where coalesce(trim(lines.text, e' \t\r\n') <> '', true)
),

extracted as (
    select
        judged.line,
        judged.fault,
        judged.record,
        case when judged.fault is null then json_extract(judged.text, getvariable('paths')) end
            as found
    from judged
)

select
    extracted.line,
    extracted.fault,
    extracted.record,
    -- An identity is a string or a number; anything else counts as missing.
    case
        when left(extracted.found[getvariable('positions').user_id], 1) not in ('{', '[', 't', 'f')
            then json_extract_string(extracted.found[getvariable('positions').user_id], '$')
    end as user_id,
    case
        when left(extracted.found[getvariable('positions').item_id], 1) not in ('{', '[', 't', 'f')
            then json_extract_string(extracted.found[getvariable('positions').item_id], '$')
    end as item_id,
    json_extract_string(extracted.found[getvariable('positions').timestamp], '$')
        as timestamp, -- noqa: RF04
    json_extract_string(extracted.found[getvariable('positions').rating], '$') as rating
from extracted

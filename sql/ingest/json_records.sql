-- One row per line of a JSONL file that is not blank: its mapped fields as a list of texts.
-- Reads: lines, a stream that can be read only once; hence a view, which takes no $parameters.
-- Variable: paths, JSON pointers of the mapped fields.
create or replace temp view json_records as
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
    extracted.text,
    extracted.found,
    coalesce(extracted.record, extracted.text) as record,
    coalesce(
        extracted.fault,
        case
            when extracted.found is null then 'malformed json'
            when starts_with(extracted.text, '{') then null
            when not starts_with(ltrim(extracted.text, e' \t\r\n'), '{') then 'not a json object'
        end
    ) as fault
from extracted

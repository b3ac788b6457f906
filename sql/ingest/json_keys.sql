-- One row per key of a file's JSON objects; asked when a mapped field seems to be missing.
-- Reads: lines.
with keys as (
    select
        unnest(
            case
                when
                    json_valid(lines.text)
                    and starts_with(ltrim(lines.text, e' \t\r\n'), '{')
                    then json_keys(lines.text)
            end
        ) as field_name
    from lines
)

select distinct keys.field_name
from keys
order by keys.field_name

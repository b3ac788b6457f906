-- One row per raw record of one file, judged; those from $until_s on count as not yet come.
-- Reads: fields (the file's records as text).
-- Parameters: $file_id, $time_format, $min_timestamp_s, $max_timestamp_s, $until_s (may be null).
insert into interactions_raw
with trimmed as (
    select
        fields.line,
        fields.fault,
        fields.record,
        nullif(trim(fields.user_id, e' \t\r\n'), '') as user_id,
        nullif(trim(fields.item_id, e' \t\r\n'), '') as item_id,
        nullif(trim(fields.timestamp, e' \t\r\n'), '') as time_text,
        nullif(trim(fields.rating, e' \t\r\n'), '') as rating_text
    from fields
),

parsed as (
    select
        trimmed.*,
        -- Fractions of a second are cut. Times without a zone are UTC: the session's time zone.
        case $time_format
            when 'seconds' then floor(try_cast(trimmed.time_text as decimal(38, 9)))
            when 'milliseconds' then floor(try_cast(trimmed.time_text as decimal(38, 9)) / 1000)
            when 'iso8601' then floor(epoch(try_cast(trimmed.time_text as timestamptz)))
        end as seconds,
        try_cast(trimmed.rating_text as double) as rating
    from trimmed
),

judged as (
    select
        parsed.*,
        case
            when parsed.fault is not null then parsed.fault
            when parsed.user_id is null then 'no user_id'
            when parsed.item_id is null then 'no item_id'
            when parsed.time_text is null then 'no timestamp'
            when parsed.seconds is null then 'timestamp is not a time'
            when
                parsed.seconds < $min_timestamp_s or parsed.seconds >= $max_timestamp_s
                then 'timestamp out of range'
            when
                parsed.rating_text is not null and not coalesce(isfinite(parsed.rating), false)
                then 'rating is not a number'
        end as reason
    from parsed
)

select
    $file_id as file_number,
    judged.line,
    judged.user_id,
    judged.item_id,
    case when judged.reason is null then cast(judged.seconds as bigint) end as timestamp_s,
    case when judged.reason is null then judged.rating end as rating,
    judged.reason,
    case
        when judged.reason is not null
            then left(
                coalesce(
                    judged.record,
                    case
                        when judged.fault is null
                            then cast(
                                json_object(
                                    'user_id', judged.user_id, 'item_id', judged.item_id,
                                    'timestamp', judged.time_text, 'rating', judged.rating_text
                                ) as varchar
                            )
                    end
                ),
                500
            )
    end as record
from judged
where judged.reason is not null or $until_s is null or judged.seconds < $until_s

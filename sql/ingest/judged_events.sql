-- One row per raw record of one domain, judged; those from $until_s on count as not yet come.
-- place holds the file's number above 40 bits of the line's; refusal the reason and, on the next
-- line, the record.
-- Reads: fields (the files' records as text).
-- Parameters: $time_format, $units_per_second (of a time that is a number), $min_timestamp_s,
-- $max_timestamp_s, $until_s (may be null).
with parsed as (
    select
        fields.*,
        trimmed(fields.user_id) as trimmed_user_id,
        trimmed(fields.item_id) as trimmed_item_id,
        -- Only a whole number is written back as it was read.
        case
            when cast(try_cast(fields.timestamp as bigint) as varchar) = fields.timestamp
                then try_cast(fields.timestamp as bigint)
        end as whole_number,
        try_cast(fields.rating as double) as rating_number
    from fields
),

-- The rare other texts in a column of their own: else DuckDB would take the slow way for all.
told as (
    select
        parsed.*,
        case when parsed.whole_number is null then trimmed(parsed.timestamp) end as time_text
    from parsed
),

timed as (
    select
        told.*,
        -- Fractions of a second are cut. Times without a zone are UTC: the session's time zone.
        case
            when $time_format = 'iso8601'
                then seconds(epoch(try_cast(trimmed(told.timestamp) as timestamptz)))
            when $units_per_second = 1
                then
                    coalesce(
                        told.whole_number,
                        seconds(try_cast(told.time_text as decimal(38, 9)))
                    )
            else
                -- Whole numbers are divided as such: a double cannot tell the last nanosecond of a
                -- second from the next one.
                coalesce(
                    whole_units(
                        coalesce(
                            told.whole_number,
                            try_cast(floor(try_cast(told.time_text as decimal(38, 9))) as bigint)
                        ),
                        $units_per_second
                    ),
                    seconds(floor(try_cast(told.time_text as decimal(38, 9))) / $units_per_second)
                )
        end as whole_seconds
    from told
),

judged as (
    select
        timed.*,
        case
            when timed.fault is not null then timed.fault
            when timed.trimmed_user_id is null then 'no user_id'
            when timed.trimmed_item_id is null then 'no item_id'
            when timed.whole_seconds is null
                then
                    case
                        when trimmed(timed.timestamp) is null then 'no timestamp'
                        else 'timestamp is not a time'
                    end
            when
                timed.whole_seconds < $min_timestamp_s
                or timed.whole_seconds >= $max_timestamp_s
                then 'timestamp out of range'
            when isfinite(timed.rating_number) then null
            when trimmed(timed.rating) is not null then 'rating is not a number'
        end as reason
    from timed
)

select
    (cast(judged.file_number as bigint) << 40) | judged.line as place,
    judged.trimmed_user_id as user_id,
    judged.trimmed_item_id as item_id,
    case when judged.reason is null then judged.whole_seconds end as timestamp_s,
    case when judged.reason is null then judged.rating_number end as rating,
    case
        when judged.reason is not null
            then concat(
                judged.reason,
                e'\n' || left(
                    coalesce(
                        judged.record,
                        case
                            when judged.fault is null
                                then cast(
                                    json_object(
                                        'user_id', judged.trimmed_user_id,
                                        'item_id', judged.trimmed_item_id,
                                        'timestamp', trimmed(judged.timestamp),
                                        'rating', trimmed(judged.rating)
                                    ) as varchar
                                )
                        end
                    ),
                    500
                )
            )
    end as refusal
from judged
where $until_s is null or judged.whole_seconds is null or judged.whole_seconds < $until_s

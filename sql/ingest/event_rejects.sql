-- One row per raw record of an event that was not accepted; a duplicate is shown by its columns.
-- Reads: refused, judged records; those without a reason are events that had come before. The
-- line is in the lower 40 bits of place.
insert into event_rejects
select
    refused.place >> 40 as file_number,
    refused.place & 1099511627775 as line, -- noqa: RF04
    coalesce(refused.reason, 'duplicate event') as reason,
    case
        when refused.reason is not null then refused.record
        else
            cast(
                json_object(
                    'user_id', refused.user_id, 'item_id', refused.item_id,
                    'timestamp_s', refused.timestamp_s
                ) as varchar
            )
    end as record
from refused

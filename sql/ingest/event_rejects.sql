-- One row per raw record of an event that was not accepted; a duplicate is shown by its columns.
-- Reads: refused, judged records; those without a refusal are events that had come before.
insert into event_rejects
select
    refused.place >> 40 as file_number,
    refused.place & 1099511627775 as line, -- noqa: RF04
    coalesce(split_part(refused.refusal, e'\n', 1), 'duplicate event') as reason,
    case
        when contains(refused.refusal, e'\n')
            then substr(refused.refusal, instr(refused.refusal, e'\n') + 1)
        when refused.refusal is null
            then
                cast(
                    json_object(
                        'user_id', refused.user_id, 'item_id', refused.item_id,
                        'timestamp_s', refused.timestamp_s
                    ) as varchar
                )
    end as record
from refused

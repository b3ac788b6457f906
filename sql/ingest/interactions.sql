-- One row per accepted event of one domain.
-- Parameters: $domain.
select
    events.user_id,
    $domain as domain,
    events.item_id,
    events.timestamp_s,
    events.rating
from events
order by events.user_id, events.timestamp_s, events.item_id

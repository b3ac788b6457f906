-- One row per accepted event of one domain.
-- Parameters: $domain_name.
select
    events.user_id,
    $domain_name as domain, -- noqa: RF04
    events.item_id,
    events.timestamp_s,
    events.rating
from events
order by events.user_id, events.timestamp_s, events.item_id

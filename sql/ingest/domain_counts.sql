-- One row: what one domain's accepted events hold.
select
    count(*) as num_events,
    count(distinct events.user_id) as num_users,
    min(events.timestamp_s) as first_timestamp_s,
    max(events.timestamp_s) as last_timestamp_s
from events

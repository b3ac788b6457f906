-- One row per event, users together, each user's events in order. Python folds them into one row
-- per user, because lists do not spill to disk and sorted rows do.
select
    marked_events.user_id,
    marked_events.domain,
    marked_events.item_id,
    marked_events.timestamp_s,
    marked_events.part,
    marked_events.is_target
from marked_events
order by
    marked_events.user_id,
    marked_events.timestamp_s,
    marked_events.domain,
    marked_events.item_id

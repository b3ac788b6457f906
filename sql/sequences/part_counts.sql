-- One row per part and domain that has events.
select
    marked_events.part,
    marked_events.domain,
    count(*) as num_events,
    count(*) filter (where marked_events.is_target) as num_targets
from marked_events
group by marked_events.part, marked_events.domain
order by marked_events.part, marked_events.domain

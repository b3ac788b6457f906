-- One row per event, with its part under leave-one-out and whether it is a target: of each user's
-- events over all domains, in the order of time, domain, item, the last one is test, the one before
-- it validation. A user with fewer events lacks the earlier parts.
-- Reads: interactions.
create or replace table marked_events as
with placed as (
    select
        interactions.user_id,
        interactions.domain,
        interactions.item_id,
        interactions.timestamp_s,
        row_number() over (
            partition by interactions.user_id
            order by
                interactions.timestamp_s desc,
                interactions.domain desc,
                interactions.item_id desc
        ) as place
    from interactions
)

select
    placed.user_id,
    placed.domain,
    placed.item_id,
    placed.timestamp_s,
    case placed.place
        when 1 then 'test'
        when 2 then 'validation'
        else 'train'
    end as part,
    placed.place <= 2 as is_target
from placed

-- One row per event of a user, oldest first, over all domains.
-- Parameters: $user_id.
-- Needs: interactions, items.
select
    interactions.dataset,
    to_timestamp(interactions.timestamp_s) as event_at,
    interactions.domain,
    interactions.item_id,
    items.title,
    interactions.rating
from interactions
inner join items
    on
        interactions.dataset = items.dataset
        and interactions.domain = items.domain
        and interactions.item_id = items.item_id
where interactions.user_id = $user_id
order by
    interactions.dataset asc,
    interactions.timestamp_s asc,
    interactions.domain asc,
    interactions.item_id asc

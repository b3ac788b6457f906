-- The table in_order: the texts without an answer, in the order of asking (rowid).
-- Reads: texts; interactions; known (domain, item_id): the items of the last run.
-- Parameters: $first_hidden_s: the first time that training does not see.
create table in_order as
with counted as (
    select
        interactions.domain,
        interactions.item_id,
        count(*) as num_events
    from interactions
    where interactions.timestamp_s < $first_hidden_s
    group by interactions.domain, interactions.item_id
)

select
    texts.domain,
    texts.item_id,
    texts.text_hash,
    texts.key
from texts
left join counted on texts.domain = counted.domain and texts.item_id = counted.item_id
left join known on texts.domain = known.domain and texts.item_id = known.item_id
where not texts.is_answered
order by
    coalesce(counted.num_events, 0) desc,
    known.item_id is null desc,
    texts.domain asc,
    texts.item_id asc

-- What the most recommended items are, and who wrote their texts.
-- Run: semacdr sql sql/examples/texts_of_recommended_items.sql
with often as (
    select
        recommendations.dataset,
        recommendations.domain,
        recommendations.item_id,
        count(*) as num_users
    from recommendations
    where recommendations.rank <= 10
    group by recommendations.dataset, recommendations.domain, recommendations.item_id
    order by num_users desc, recommendations.item_id asc
    limit 10
)

select
    often.domain,
    often.item_id,
    often.num_users,
    semantics.view,
    semantics.text,
    semantics.source
from often
inner join semantics
    on
        often.dataset = semantics.dataset
        and often.domain = semantics.domain
        and often.item_id = semantics.item_id
order by often.num_users desc, often.item_id asc, semantics.view asc

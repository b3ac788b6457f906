-- The items nearest to the best-known one by what is written of who wants them, in every domain.
-- Run: semacdr sql sql/examples/nearest_items.sql
with best_known as (
    select
        interactions.dataset,
        interactions.domain,
        interactions.item_id
    from interactions
    group by interactions.dataset, interactions.domain, interactions.item_id
    order by
        count(*) desc,
        interactions.dataset asc,
        interactions.domain asc,
        interactions.item_id asc
    limit 1
),

pairs as (
    select
        candidates.dataset,
        candidates.domain,
        candidates.item_id,
        array_cosine_similarity(queries.vector, candidates.vector) as cosine
    from best_known
    inner join embeddings as queries
        on
            best_known.dataset = queries.dataset
            and best_known.domain = queries.domain
            and best_known.item_id = queries.item_id
            and queries.view = 'agnostic'
    inner join embeddings as candidates
        on queries.dataset = candidates.dataset and candidates.view = 'agnostic'
)

select
    pairs.domain,
    pairs.item_id,
    round(pairs.cosine, 3) as cosine,
    items.title
from pairs
inner join items
    on
        pairs.dataset = items.dataset
        and pairs.domain = items.domain
        and pairs.item_id = items.item_id
qualify
    row_number() over (
        partition by pairs.domain
        order by pairs.cosine desc, pairs.item_id asc
    ) <= 5
order by pairs.domain asc, pairs.cosine desc, pairs.item_id asc

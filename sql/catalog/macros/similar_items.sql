-- One row per item near an item by what is written of who wants it (the agnostic view), the nearest
-- k over all domains. An id that stands for items of several domains or data sets gives k rows for
-- each.
-- Parameters: $item_id, $k.
-- Needs: embeddings, items.
with sources as (
    select
        embeddings.dataset,
        embeddings.domain,
        embeddings.item_id as source_item_id,
        embeddings.vector
    from embeddings
    where embeddings.item_id = $item_id and embeddings.view = 'agnostic'
),

pairs as (
    select
        sources.dataset,
        sources.domain as source_domain,
        embeddings.domain,
        embeddings.item_id as similar_item_id,
        list_cosine_similarity(sources.vector, embeddings.vector) as cosine
    from sources
    inner join embeddings
        on
            sources.dataset = embeddings.dataset
            and embeddings.view = 'agnostic'
            and (
                sources.domain <> embeddings.domain
                or sources.source_item_id <> embeddings.item_id
            )
),

ranked as (
    select
        pairs.dataset,
        pairs.source_domain,
        pairs.domain,
        pairs.similar_item_id,
        pairs.cosine,
        row_number() over (
            partition by pairs.dataset, pairs.source_domain
            order by pairs.cosine desc, pairs.domain asc, pairs.similar_item_id asc
        ) as place
    from pairs
)

select
    ranked.dataset,
    ranked.source_domain,
    ranked.place,
    ranked.domain,
    ranked.similar_item_id as item_id,
    items.title,
    ranked.cosine
from ranked
inner join items
    on
        ranked.dataset = items.dataset
        and ranked.domain = items.domain
        and ranked.similar_item_id = items.item_id
where ranked.place <= $k
order by ranked.dataset asc, ranked.source_domain asc, ranked.place asc

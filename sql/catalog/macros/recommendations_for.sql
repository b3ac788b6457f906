-- One row per recommendation of a user, best first within each domain.
-- Parameters: $user_id.
-- Needs: recommendations, items.
select
    recommendations.dataset,
    recommendations.domain,
    recommendations.rank,
    recommendations.item_id,
    items.title,
    recommendations.score,
    recommendations.reason
from recommendations
inner join items
    on
        recommendations.dataset = items.dataset
        and recommendations.domain = items.domain
        and recommendations.item_id = items.item_id
where recommendations.user_id = $user_id
order by recommendations.dataset asc, recommendations.domain asc, recommendations.rank asc

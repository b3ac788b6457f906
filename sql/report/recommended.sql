-- One row per recommendation of a user, the domains taking turns, with what is written of the item.
-- Parameters: $user_id, $length (rows in all).
-- Views: recommended, catalogue (items), texts (semantics).
select
    recommended.domain,
    recommended.rank,
    recommended.item_id,
    recommended.score,
    recommended.reason,
    coalesce(catalogue.title, '(no title)') as title,
    specific.text as specific_text,
    agnostic.text as agnostic_text,
    agnostic.source as text_source,
    agnostic.model as text_model
from recommended
inner join catalogue
    on recommended.domain = catalogue.domain and recommended.item_id = catalogue.item_id
left join texts as specific
    on
        recommended.domain = specific.domain
        and recommended.item_id = specific.item_id
        and specific.view = 'specific'
left join texts as agnostic
    on
        recommended.domain = agnostic.domain
        and recommended.item_id = agnostic.item_id
        and agnostic.view = 'agnostic'
where recommended.user_id = $user_id
order by recommended.rank asc, recommended.domain asc
limit $length

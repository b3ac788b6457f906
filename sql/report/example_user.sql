-- One row: the user to show, with a history in every domain, and of whose recommendations the LLM
-- of a run has written most.
-- Views: recommended (recommendations), events (interactions), texts (semantics).
with written as (
    select
        texts.domain,
        texts.item_id
    from texts
    where texts.view = 'agnostic' and texts.source = 'generated'
),

known_best as (
    select
        recommended.user_id,
        count(written.item_id) as num_written
    from recommended
    left join written
        on recommended.domain = written.domain and recommended.item_id = written.item_id
    where recommended.rank <= 5
    group by recommended.user_id
),

in_domains as (
    select
        events.user_id,
        count(distinct events.domain) as num_domains,
        count(*) as num_events
    from events
    group by events.user_id
)

select in_domains.user_id
from in_domains
inner join known_best on in_domains.user_id = known_best.user_id
order by
    in_domains.num_domains desc,
    known_best.num_written desc,
    in_domains.num_events asc,
    in_domains.user_id asc
limit 1

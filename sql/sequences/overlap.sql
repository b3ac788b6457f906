-- One row per number of domains: how many users have events in that many.
with users as (
    select
        marked_events.user_id,
        count(distinct marked_events.domain) as num_domains
    from marked_events
    group by marked_events.user_id
)

select
    users.num_domains,
    count(*) as num_users
from users
group by users.num_domains
order by users.num_domains

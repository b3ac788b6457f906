-- One row per recent event of a user, newest first within each domain.
-- Parameters: $user_id, $length (events per domain).
-- Views: events (user_id, domain, item_id, timestamp_s), catalogue (items).
with numbered as (
    select
        events.domain,
        events.item_id,
        events.timestamp_s,
        row_number() over (
            partition by events.domain
            order by events.timestamp_s desc, events.item_id asc
        ) as recency
    from events
    where events.user_id = $user_id
)

select
    numbered.domain,
    numbered.item_id,
    cast(to_timestamp(numbered.timestamp_s) at time zone 'UTC' as date) as event_date,
    coalesce(catalogue.title, '(no title)') as title
from numbered
inner join catalogue
    on numbered.domain = catalogue.domain and numbered.item_id = catalogue.item_id
where numbered.recency <= $length
order by numbered.domain asc, numbered.recency asc

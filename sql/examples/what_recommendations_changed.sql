-- One row per data set: how many of the current recommendations were not among those of the version
-- before, as the history of the alias tells.
-- Run: semacdr sql sql/examples/what_recommendations_changed.sql
with moves as (
    select
        aliases.dataset,
        aliases.version as version_now,
        lag(aliases.version) over (
            partition by aliases.dataset
            order by aliases.moved_at asc
        ) as version_before,
        aliases.is_now
    from aliases
    where aliases.name = 'recommendations' and aliases.alias = 'current'
),

compared as (
    select
        moves.dataset,
        moves.version_before,
        moves.version_now,
        earlier.item_id is null as is_new
    from moves
    inner join recommendations_versions as later
        on
            moves.dataset = later.dataset
            and moves.version_now = later.version
    left join recommendations_versions as earlier
        on
            later.dataset = earlier.dataset
            and moves.version_before = earlier.version
            and later.user_id = earlier.user_id
            and later.domain = earlier.domain
            and later.item_id = earlier.item_id
    where moves.is_now and moves.version_before is not null
)

select
    compared.dataset,
    compared.version_before,
    compared.version_now,
    count(*) as num_rows,
    count(*) filter (where compared.is_new) as num_new,
    round(count(*) filter (where compared.is_new) / count(*), 3) as share_new
from compared
group by compared.dataset, compared.version_before, compared.version_now
order by compared.dataset asc

-- One row per data set: the version of an artifact that readers got at a time, and whether it is
-- still in the store. A time without a zone is one of the session's; the moment of a move counts
-- as after it.
-- Needs: aliases, artifacts.
-- Parameters: $name, $ts, $alias = 'current'.
select
    aliases.dataset,
    aliases.name,
    aliases.alias,
    aliases.version,
    aliases.moved_at,
    artifacts.version is not null as is_published
from aliases
left join artifacts
    on
        aliases.dataset = artifacts.dataset
        and aliases.name = artifacts.name
        and aliases.version = artifacts.version
where
    aliases.name = $name
    and aliases.alias = $alias
    and aliases.moved_at <= $ts::timestamptz
    and (aliases.moved_on_at is null or aliases.moved_on_at > $ts::timestamptz)
order by aliases.dataset asc

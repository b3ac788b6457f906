-- What changed between the two newest versions of each data set's texts.
-- One row per text that is new, gone or other.
-- Run: semacdr sql sql/examples/changed_texts.sql
with versions as (
    select
        artifacts.dataset,
        artifacts.version,
        row_number() over (
            partition by artifacts.dataset
            order by artifacts.created_at desc, artifacts.version desc
        ) as age
    from artifacts
    where artifacts.name = 'semantics'
),

texts as (
    select
        versions.age,
        semantics_versions.dataset,
        semantics_versions.domain,
        semantics_versions.item_id,
        semantics_versions.view,
        semantics_versions.text,
        semantics_versions.source
    from semantics_versions
    inner join versions
        on
            semantics_versions.dataset = versions.dataset
            and semantics_versions.version = versions.version
    where versions.age <= 2
),

newest as (
    select texts.*
    from texts
    where texts.age = 1
),

older as (
    select texts.*
    from texts
    where texts.age = 2
)

select
    coalesce(newest.dataset, older.dataset) as dataset,
    coalesce(newest.domain, older.domain) as domain,  -- noqa: RF04
    coalesce(newest.item_id, older.item_id) as item_id,
    coalesce(newest.view, older.view) as view,  -- noqa: RF04
    older.source as source_before,
    newest.source as source_now,
    older.text as text_before,
    newest.text as text_now
from newest
full outer join older
    on
        newest.dataset = older.dataset
        and newest.domain = older.domain
        and newest.item_id = older.item_id
        and newest.view = older.view
where
    newest.text is distinct from older.text
    and exists (
        select 1
        from versions
        where versions.age = 2 and versions.dataset = coalesce(newest.dataset, older.dataset)
    )
order by dataset asc, domain asc, item_id asc, view asc

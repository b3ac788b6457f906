-- One row per artifact that was made, directly or through others, from the current items.
-- Run: semacdr sql sql/examples/what_is_made_from_items.sql
with sources as (
    select
        artifacts.dataset,
        artifacts.name || '@' || artifacts.version as reference
    from artifacts
    where artifacts.name = 'items' and list_contains(artifacts.aliases, 'current')
)

select
    sources.dataset,
    sources.reference as items,
    lineage_tree.artifact,
    lineage_tree.num_steps
from sources
inner join lineage_tree
    on
        sources.dataset = lineage_tree.dataset
        and sources.reference = lineage_tree.ancestor
order by sources.dataset asc, lineage_tree.num_steps asc, lineage_tree.artifact asc

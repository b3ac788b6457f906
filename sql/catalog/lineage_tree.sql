-- One row per artifact and artifact that it was made from, directly or through others; num_steps is
-- the length of the shortest way. Read it upwards with `where artifact = ...`, downwards with
-- `where ancestor = ...`.
create view lineage_tree as
with recursive ways as (
    select
        lineage.dataset,
        lineage.artifact,
        lineage.input as ancestor,
        1 as num_steps
    from lineage
    union
    select
        ways.dataset,
        ways.artifact,
        lineage.input as ancestor,
        ways.num_steps + 1 as num_steps
    from ways
    inner join lineage
        on ways.dataset = lineage.dataset and ways.ancestor = lineage.artifact
)

select
    ways.dataset,
    ways.artifact,
    ways.ancestor,
    min(ways.num_steps) as num_steps
from ways
group by ways.dataset, ways.artifact, ways.ancestor;

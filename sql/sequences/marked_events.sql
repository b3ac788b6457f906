-- One row per event, with its part of the global temporal split and whether it is a target:
-- the first event of its user in its domain and part, training left out; ties by item_id.
-- Reads: interactions.
-- Parameters: $t_validation_s, $t_test_s.
create or replace table marked_events as
with parted as (
    select
        interactions.user_id,
        interactions.domain,
        interactions.item_id,
        interactions.timestamp_s,
        case
            when interactions.timestamp_s < $t_validation_s then 'train'
            when interactions.timestamp_s < $t_test_s then 'validation'
            else 'test'
        end as part
    from interactions
)

select
    parted.user_id,
    parted.domain,
    parted.item_id,
    parted.timestamp_s,
    parted.part,
    parted.part <> 'train' and row_number() over (
        partition by parted.user_id, parted.domain, parted.part
        order by parted.timestamp_s, parted.item_id
    ) = 1 as is_target
from parted

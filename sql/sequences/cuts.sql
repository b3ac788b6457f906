-- One row: the two cuts through the times of all events, lower quantiles: the sorted times at place
-- floor((n - 1) * q), counted from 0. Counting per time needs no list of all times in memory.
-- Reads: interactions.
-- Parameters: $validation_quantile, $test_quantile.
with times as (
    select
        interactions.timestamp_s,
        count(*) as num_events
    from interactions
    group by interactions.timestamp_s
),

placed as (
    select
        times.timestamp_s,
        sum(times.num_events) over (order by times.timestamp_s) as num_until,
        sum(times.num_events) over () as num_events
    from times
)

select
    min(placed.timestamp_s) filter (
        where placed.num_until > floor((placed.num_events - 1) * $validation_quantile)
    ) as t_validation_s,
    min(placed.timestamp_s) filter (
        where placed.num_until > floor((placed.num_events - 1) * $test_quantile)
    ) as t_test_s
from placed

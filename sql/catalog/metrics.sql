-- One row per metric of an artifact: what its manifest calls metrics, as rows.
create view metrics as
with metric_names as (
    select
        artifacts.dataset,
        artifacts.name,
        artifacts.version,
        artifacts.metrics,
        unnest(json_keys(artifacts.metrics)) as metric
    from artifacts
)

select
    metric_names.dataset,
    metric_names.name,
    metric_names.version,
    metric_names.metric,
    -- A metric of a domain may hold a dot.
    json_extract(metric_names.metrics, '$."' || metric_names.metric || '"')::double as metric_value
from metric_names;

-- One row per table and reason of one domain's rejected records, with the first of them.
-- Parameters: $domain_name.
select
    rejected.table_name,
    rejected.reason,
    count(*) as records,
    list(
        rejected.file_path || ':' || rejected.line
        || coalesce(' ' || left(trim(rejected.record, e' \r\n'), 120), '')
        order by rejected.file_path, rejected.line
    )[:3] as places
from rejected
where rejected.domain = $domain_name
group by rejected.table_name, rejected.reason
order by rejected.table_name asc, records desc, rejected.reason asc

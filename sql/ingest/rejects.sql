-- One row per raw record that was not accepted, in all domains.
select
    rejected.table_name as "table", -- noqa: RF06
    rejected.domain,
    rejected.file_path as file, -- noqa: RF04
    rejected.line,
    rejected.reason,
    rejected.record
from rejected
order by rejected.table_name, rejected.domain, rejected.file_path, rejected.line

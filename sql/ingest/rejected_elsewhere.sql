-- One row per rejected record of the domains' own files.
-- Parameters: $files.
insert into rejected
select
    rejects."table" as table_name, -- noqa: RF06
    rejects.domain,
    rejects.file as file_path,
    rejects.line,
    rejects.reason,
    rejects.record
from read_parquet($files, hive_partitioning = false) as rejects

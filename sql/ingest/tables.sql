-- The tables of one domain's ingest.
-- interactions_raw, items_raw: one row per raw record; reason is null for those accepted so far.
-- duplicate_events: one row per accepted event that had come before (by file, line).
-- rejected: one row per raw record that was not accepted, in all domains; made once.
-- files: one row per raw file of a table; numbers are by path.
-- Temporary: what is in the database's file is packed first, which takes longer than all the rest.
create or replace temp table interactions_raw (
    file_number integer not null,
    line bigint not null,
    user_id varchar,
    item_id varchar,
    timestamp_s bigint,
    rating double,
    reason varchar,
    record varchar
);

create or replace table items_raw (
    file_number integer not null,
    line bigint not null,
    item_id varchar,
    title varchar,
    brand varchar,
    categories varchar,
    description varchar,
    price varchar,
    reason varchar,
    record varchar
);

create or replace table duplicate_events (
    file_number integer not null,
    line bigint not null,
    user_id varchar not null,
    item_id varchar not null,
    timestamp_s bigint not null
);

create table if not exists rejected (
    table_name varchar not null,
    domain varchar not null,
    file_path varchar not null,
    line bigint not null,
    reason varchar not null,
    record varchar
);

create or replace table files (
    table_name varchar not null,
    file_number integer not null,
    file_path varchar not null
);

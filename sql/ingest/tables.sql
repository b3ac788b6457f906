-- The tables of one domain's ingest.
-- event_rejects: one row per raw record of an event that was not accepted.
-- items_raw: one row per raw record of an item; reason is null for those accepted so far.
-- rejected: one row per raw record that was not accepted, in all domains; made once.
-- files: one row per raw file of a table; numbers are by path.
create or replace table event_rejects (
    file_number integer not null,
    line bigint not null,
    reason varchar not null,
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

-- One row: raw records of one domain in each table, blank lines left out.
select
    (select count(*) from interactions_raw) as interactions,
    (select count(*) from items_raw) as items

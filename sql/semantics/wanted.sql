-- The table wanted: one row per different text without an answer, in the order of asking (rowid).
-- Reads: in_order.
create table wanted as
with firsts as (
    select min(in_order.rowid) as place
    from in_order
    group by in_order.key
)

select
    in_order.domain,
    in_order.item_id,
    in_order.text_hash,
    in_order.key
from in_order
where in_order.rowid in (select firsts.place from firsts)
order by in_order.rowid

-- The table texts: one row per item whose text is the LLM's to write, with the key of its answer
-- and whether there is one.
-- Reads: items; prefixes (domain, prefix): what is hashed before an item's text; answers (key);
-- imported (domain, item_id).
create table texts as
select
    items.domain,
    items.item_id,
    items.text_hash,
    sha256(prefixes.prefix || items.text_hash) as key,  -- noqa: RF04
    exists(
        select 1
        from answers
        where answers.key = sha256(prefixes.prefix || items.text_hash)
    ) as is_answered
from items
inner join prefixes on items.domain = prefixes.domain
where
    items.has_text
    and not exists (
        select 1
        from imported
        where imported.domain = items.domain and imported.item_id = items.item_id
    )

-- The agnostic texts that say most of what their item is: words of its title, brand or categories.
-- Run: semacdr sql sql/examples/worst_leaks.sql
select
    semantics_audit.dataset,
    semantics_audit.domain,
    semantics_audit.item_id,
    semantics_audit.rule,
    semantics_audit.detail as leaked_words,
    semantics_audit.text,
    items.title
from semantics_audit
inner join items
    on
        semantics_audit.dataset = items.dataset
        and semantics_audit.domain = items.domain
        and semantics_audit.item_id = items.item_id
where semantics_audit.rule in ('brand_leak', 'category_leak', 'title_leak')
order by
    semantics_audit.value desc,
    semantics_audit.dataset asc,
    semantics_audit.domain asc,
    semantics_audit.item_id asc,
    semantics_audit.rule asc
limit 10

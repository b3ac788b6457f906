-- What the answers behind the current texts cost, per domain and prompt.
-- A call whose item text several items share counts for each of them.
-- Run: semacdr sql sql/examples/cost_per_domain.sql
select
    semantics.dataset,
    semantics.domain,
    semantics.prompt,
    count(*) as num_items,
    sum(semantics.prompt_tokens) as prompt_tokens,
    sum(semantics.completion_tokens) as completion_tokens,
    round(avg(semantics.completion_tokens), 1) as completion_tokens_per_item,
    count(*) filter (where semantics.source = 'fallback') as num_not_used
from semantics
where semantics.view = 'agnostic' and semantics.completion_tokens is not null
group by semantics.dataset, semantics.domain, semantics.prompt
order by semantics.dataset asc, semantics.domain asc, semantics.prompt asc

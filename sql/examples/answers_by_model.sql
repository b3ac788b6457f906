-- What every model and prompt was asked, how much of it was of use, and what it cost.
-- All runs and data sets of the store together.
-- Run: semacdr sql sql/examples/answers_by_model.sql
select
    model,
    prompt,
    source,
    count(*) as num_answers,
    count(*) filter (where status = 'ok') as num_accepted,
    mode(reason) as commonest_fault,
    sum(calls) as num_calls,
    sum(spent_tokens) as num_tokens,
    round(sum(spent_tokens) / nullif(num_accepted, 0), 1) as tokens_per_accepted
from semantics_responses
group by model, prompt, source
order by num_tokens desc, model asc, prompt asc

-- What the queries over raw records share. Nearly every value is clean: these look twice only at
-- values that may not be.
-- trimmed: without white space at its ends; null when nothing is left.
-- identity: a string or number at a place in a JSON text; anything else counts as missing.
-- whole_units: how many whole units are in a whole number, rounded down.
-- seconds: a number as whole seconds, fractions cut, kept within what a bigint holds.
create or replace macro trimmed(value) as
case
    when value < '!' or value[-1] < '!' then nullif(trim(value, e' \t\r\n'), '')
    else value
end;

create or replace macro identity(value, document, place) as
case
    when value >= '{' or value between '[' and '[~' or value in ('true', 'false')
        then
            case
                when json_type(document, place) not in ('OBJECT', 'ARRAY', 'BOOLEAN') then value
            end
    else value
end;

create or replace macro seconds(number) as
cast(
    case
        when floor(number) > 9000000000000000000 then 9000000000000000000
        when floor(number) < -9000000000000000000 then -9000000000000000000
        else floor(number)
    end as bigint
);

create or replace macro whole_units(number, unit) as
number // unit - cast(number % unit < 0 as bigint);

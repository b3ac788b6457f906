-- One row per raw item record of one domain, judged.
-- Reads: fields (the files' records as text).
insert into items_raw
with judged as (
    select
        fields.*,
        trimmed(fields.item_id) as item,
        coalesce(
            fields.fault,
            case when trimmed(fields.item_id) is null then 'no item_id' end
        ) as reason
    from fields
)

select
    judged.file_number,
    judged.line,
    judged.item as item_id,
    judged.title,
    judged.brand,
    judged.categories,
    judged.description,
    judged.price,
    judged.reason,
    case
        when judged.reason is not null
            then left(
                coalesce(
                    judged.record,
                    case
                        when judged.fault is null
                            then cast(
                                json_object('item_id', judged.item, 'title', judged.title)
                                as varchar
                            )
                    end
                ),
                500
            )
    end as record
from judged

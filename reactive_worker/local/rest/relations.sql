-- What belongs to what: tables and views with their columns and keys, foreign keys, functions from one table's row
-- to another's rows, and the views' definitions. One JSON object; columns by their numbers.
with relations as (
  select c.oid, n.nspname as schema, c.relname as name, c.reltype as type, c.relkind in ('v', 'm') as view
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  where c.relkind in ('r', 'p', 'f', 'v', 'm') and not c.relispartition
    and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname not like 'pg\_t%'
)
select pg_catalog.json_build_object(
  'relations', (
    select coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
      'oid', r.oid::bigint,
      'schema', r.schema,
      'name', r.name,
      'columns', (
        select coalesce(pg_catalog.json_object_agg(a.attnum, a.attname), '{}')
        from pg_catalog.pg_attribute a
        where a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
      ),
      'key', (
        select k.conkey from pg_catalog.pg_constraint k where k.conrelid = r.oid and k.contype = 'p'
      ),
      'definition', case when r.view then (
        select w.ev_action::text from pg_catalog.pg_rewrite w
        where w.ev_class = r.oid and w.rulename = '_RETURN'
      ) end
    )), '[]')
    from relations r
  ),
  'constraints', (
    select coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
      'name', k.conname,
      'table', k.conrelid::bigint,
      'other', k.confrelid::bigint,
      'columns', k.conkey,
      'others', k.confkey,
      -- Not two rows of the table can refer to the same row of the other.
      'unique', exists (
        select from pg_catalog.pg_constraint u
        where u.conrelid = k.conrelid and u.contype in ('p', 'u') and u.conkey @> k.conkey and u.conkey <@ k.conkey
      )
    ) order by k.conrelid, k.conname), '[]')
    from pg_catalog.pg_constraint k
    where k.contype = 'f' and k.conparentid = 0
      and k.conrelid in (select oid from relations) and k.confrelid in (select oid from relations)
  ),
  'functions', (
    select coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
      'schema', n.nspname,
      'name', p.proname,
      'table', f.oid::bigint,
      'other', t.oid::bigint,
      'single', not p.proretset or p.prorows = 1
    ) order by n.nspname, p.proname), '[]')
    from pg_catalog.pg_proc p
    join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    join relations f on f.type = p.proargtypes[0]
    join relations t on t.type = p.prorettype
    where p.pronargs = 1
  )
)::text

do $drop$
declare
  one text;
begin
  for one in
    select format('drop policy %I on realtime.messages', policyname) from pg_policies
    where schemaname = 'realtime' and tablename = 'messages' and starts_with(policyname, 'rwc_')
  loop
    execute one;
  end loop;
  for one in
    select format('drop function if exists %s cascade', oid::regprocedure) from pg_proc
    where pronamespace = 'public'::regnamespace and starts_with(proname, 'rwc_')
  loop
    execute one;
  end loop;
  for one in
    select format('drop %s if exists %I.%I cascade', case relkind when 'v' then 'view' else 'table' end,
      'public', relname) from pg_class
    where relnamespace = 'public'::regnamespace and starts_with(relname, 'rwc_') and relkind in ('r', 'v')
  loop
    execute one;
  end loop;
  execute 'drop type if exists public.rwc_mood';
end
$drop$;

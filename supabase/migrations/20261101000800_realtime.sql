-- What Realtime pushes: new tasks, their events, and the workers' mailboxes. Never `workers`, with its heartbeats.

do $$
declare
  v_table text;
begin
  if not exists (select from pg_catalog.pg_publication where pubname = 'supabase_realtime') then
    create publication supabase_realtime;
  end if;
  -- A publication FOR ALL TABLES has them already, and refuses to be told so.
  if exists (select from pg_catalog.pg_publication where pubname = 'supabase_realtime' and puballtables) then
    return;
  end if;
  foreach v_table in array array['todolist', 'events', 'worker_mailbox'] loop
    if not exists (
      select from pg_catalog.pg_publication_tables
      where pubname = 'supabase_realtime' and schemaname = 'public' and tablename = v_table
    ) then
      execute format('alter publication supabase_realtime add table public.%I', v_table);
    end if;
  end loop;
end
$$;

-- Facts for `reactive-worker doctor`: what the catalog says about the tables and functions of reactive-worker, and what
-- was left behind. Facts only: what is wrong with them is judged outside, where the reasons and the cures are.
--
-- Nothing of the rest of the project is told, for the worker's token may ask: tables and functions are listed by name,
-- and of the settings only those below, because settings hold secrets (pgrst.jwt_secret).

-- SECURITY DEFINER: the worker's role may not read the tables that are counted. plpgsql reads a statement's tables when
-- it is run, so the facts of half a schema can be told, too. Also run as pg_temp.reactive_worker_diagnose by whoever
-- looks from a direct connection before this file has been applied: hence nothing of our own is called unguarded.
create function public.reactive_worker_diagnose() returns jsonb
language plpgsql stable security definer
set search_path = ''
as $$
declare
  v_schemas constant text[] := array['public', 'reactive_worker_private'];
  v_tables constant text[] := array['todolist', 'events', 'workers', 'worker_mailbox', 'steering'];
  v_functions constant text[] := array[
    'register_worker', 'heartbeat_worker', 'unregister_worker', 'touch_probe', 'set_worker_state', 'list_workers',
    'submit_todos', 'cancel_todo', 'retry_todo', 'answer_todo', 'steer_todo', 'read_steering', 'sweep_todos',
    'reclaim_todos', 'claim_todos', 'append_events', 'finish_todos', 'release_todos', 'push_ways', 'todo_stats',
    'todo_timings', 'prune_todos', 'tail_events', 'reactive_worker_now', 'reactive_worker_uuid',
    'reactive_worker_schema_version', 'reactive_worker_diagnose', 'reactive_worker_rows'];
  v_settings constant text[] := array['statement_timeout', 'lock_timeout', 'pgrst.db_schemas', 'pgrst.db_max_rows'];
  v_roles constant text[] := array['anon', 'authenticated', 'service_role', 'reactive_worker', 'authenticator'];
  v_facts jsonb;
  v_more jsonb;
begin
  select jsonb_build_object(
    'now', clock_timestamp(),
    'database', current_database(),
    'server_version', current_setting('server_version_num')::integer,
    'wal_level', current_setting('wal_level'),
    'statement_timeout', current_setting('statement_timeout'),
    'covers', jsonb_build_object('tables', v_tables, 'functions', v_functions),
    'roles', (
      select coalesce(jsonb_object_agg(r.rolname, jsonb_build_object(
        'member_of', (
          select coalesce(jsonb_agg(g.rolname order by g.rolname), '[]')
          from pg_catalog.pg_auth_members m join pg_catalog.pg_roles g on g.oid = m.roleid where m.member = r.oid),
        'bypassrls', r.rolbypassrls or r.rolsuper,
        'settings', (
          select coalesce(jsonb_object_agg(split_part(s.pair, '=', 1), substr(s.pair, strpos(s.pair, '=') + 1)
            -- What is set for this database wins over what is set for all.
            order by d.setdatabase), '{}')
          from pg_catalog.pg_db_role_setting d, unnest(d.setconfig) s (pair)
          where d.setrole = r.oid and split_part(s.pair, '=', 1) = any (v_settings)
            and d.setdatabase in (0, (select oid from pg_catalog.pg_database where datname = current_database()))),
        -- Of these, those that are set for this database.
        'settings_here', (
          select coalesce(jsonb_agg(split_part(s.pair, '=', 1)), '[]')
          from pg_catalog.pg_db_role_setting d, unnest(d.setconfig) s (pair)
          where d.setrole = r.oid and split_part(s.pair, '=', 1) = any (v_settings)
            and d.setdatabase = (select oid from pg_catalog.pg_database where datname = current_database())),
        'schemas', (
          select coalesce(jsonb_agg(n.nspname order by n.nspname), '[]') from pg_catalog.pg_namespace n
          where n.nspname = any (v_schemas || array['realtime'])
            and pg_catalog.has_schema_privilege(r.oid, n.oid, 'usage')))), '{}')
      from pg_catalog.pg_roles r where r.rolname = any (v_roles)),
    'publication', (
      select jsonb_build_object('all_tables', p.puballtables, 'insert', p.pubinsert, 'update', p.pubupdate,
        'delete', p.pubdelete, 'tables', (
          select coalesce(jsonb_agg(t.tablename order by t.tablename), '[]') from pg_catalog.pg_publication_tables t
          where t.pubname = p.pubname and t.schemaname = 'public' and t.tablename = any (v_tables)))
      from pg_catalog.pg_publication p where p.pubname = 'supabase_realtime'),
    'realtime', jsonb_build_object(
      'send', pg_catalog.to_regprocedure('realtime.send(jsonb,text,text,boolean)') is not null,
      'messages', pg_catalog.to_regclass('realtime.messages') is not null,
      'hints_policy', exists (
        select from pg_catalog.pg_policy
        where polrelid = pg_catalog.to_regclass('realtime.messages') and polname = 'workers hear their hints')))
  into v_facts;

  select coalesce(jsonb_object_agg(c.relname, jsonb_build_object(
    'rls', c.relrowsecurity,
    'replica_identity', case c.relreplident when 'd' then 'default' when 'n' then 'nothing'
      when 'f' then 'full' else 'index' end,
    'grants', (
      select coalesce(jsonb_object_agg(g.grantee, g.rights), '{}') from (
        select coalesce(r.rolname, 'PUBLIC') as grantee, jsonb_agg(lower(a.privilege_type) order by a.privilege_type) as rights
        from pg_catalog.aclexplode(c.relacl) a left join pg_catalog.pg_roles r on r.oid = a.grantee
        where a.grantee = 0 or r.rolname = any (v_roles) group by 1) g),
    'column_grants', (
      select coalesce(jsonb_object_agg(g.grantee, g.rights), '{}') from (
        select k.grantee, jsonb_object_agg(k.privilege, k.columns) as rights from (
          select coalesce(r.rolname, 'PUBLIC') as grantee, lower(x.privilege_type) as privilege,
            jsonb_agg(a.attname order by a.attname) as columns
          from pg_catalog.pg_attribute a, pg_catalog.aclexplode(a.attacl) x
          left join pg_catalog.pg_roles r on r.oid = x.grantee
          where a.attrelid = c.oid and not a.attisdropped and (x.grantee = 0 or r.rolname = any (v_roles))
          group by 1, 2) k group by k.grantee) g),
    'policies', (
      select coalesce(jsonb_object_agg(p.policyname, jsonb_build_object('command', lower(p.cmd), 'roles', p.roles)), '{}')
      from pg_catalog.pg_policies p where p.schemaname = 'public' and p.tablename = c.relname),
    'triggers', (
      select coalesce(jsonb_object_agg(t.tgname, t.tgenabled in ('O', 'A')), '{}') from pg_catalog.pg_trigger t
      where t.tgrelid = c.oid and not t.tgisinternal))), '{}')
  into v_more
  from pg_catalog.pg_class c
  where c.relnamespace = 'public'::pg_catalog.regnamespace and c.relkind in ('r', 'p') and c.relname = any (v_tables);
  v_facts := v_facts || jsonb_build_object('tables', v_more);

  -- No ACL is the default one: EXECUTE for everybody.
  select coalesce(jsonb_object_agg(n.nspname || '.' || p.proname || '('
      || pg_catalog.oidvectortypes(p.proargtypes) || ')', jsonb_build_object(
    'security_definer', p.prosecdef,
    'search_path', (
      select substr(s.pair, strpos(s.pair, '=') + 1) from unnest(p.proconfig) s (pair)
      where s.pair like 'search\_path=%'),
    'execute', (
      select coalesce(jsonb_agg(distinct coalesce(r.rolname, 'PUBLIC')), '[]')
      from pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) a
      left join pg_catalog.pg_roles r on r.oid = a.grantee
      where a.grantee = 0 or r.rolname = any (v_roles)))), '{}')
  into v_more
  from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
  where n.nspname = 'reactive_worker_private' or n.nspname = 'public' and p.proname = any (v_functions);
  v_facts := v_facts || jsonb_build_object('functions', v_more);

  -- Numbers only: what the project's own migrations say is its own business.
  v_more := null;
  if pg_catalog.to_regclass('supabase_migrations.schema_migrations') is not null then
    begin
      select coalesce(jsonb_agg(m.version order by m.version), '[]') into v_more
      from supabase_migrations.schema_migrations m;
    exception when insufficient_privilege then
      null;  -- unknown
    end;
  end if;
  v_facts := v_facts || jsonb_build_object('migrations', v_more);

  if pg_catalog.to_regclass('public.todolist') is null or pg_catalog.to_regclass('public.workers') is null
    or pg_catalog.to_regprocedure('public.reactive_worker_now()') is null then
    return v_facts || jsonb_build_object('task_now', null, 'workers', null, 'strays', null, 'waiting', null);
  end if;

  select coalesce(jsonb_agg(jsonb_build_object(
    'id', w.id, 'name', w.name, 'agent_types', w.agent_types, 'push', w.info ->> 'push',
    -- A sweep that has begun to put its tasks back sets the lease to the epoch.
    'expired_seconds', greatest(0, extract(
      epoch from public.reactive_worker_now() - greatest(w.lease_until, w.heartbeat_at))),
    'alive', w.lease_until > public.reactive_worker_now(),
    'holds', (select count(*) from public.todolist t where t.agent_status = 'in_progress' and t.worker_id = w.id)
    ) order by w.started_at), '[]')
  into v_more
  from (select * from public.workers order by lease_until limit 1000) w;
  v_facts := v_facts || jsonb_build_object('task_now', public.reactive_worker_now(), 'workers', v_more);

  -- Held by nobody there is.
  select jsonb_build_object('count', count(*), 'first', (array_agg(t.id order by t.id))[1:3]) into v_more
  from public.todolist t
  where t.agent_status = 'in_progress'
    and not exists (select from public.workers w where w.id = t.worker_id);
  v_facts := v_facts || jsonb_build_object('strays', v_more);

  -- The types one after the other by index: ten million waiting rows of one type are passed in one step. Counting ends
  -- at ten thousand of each.
  with recursive types as (
    (select t.agent_type from public.todolist t where t.agent_status = 'pending' order by t.agent_type limit 1)
    union all
    select (
      select t.agent_type from public.todolist t
      where t.agent_status = 'pending' and t.agent_type > y.agent_type order by t.agent_type limit 1)
    from types y where y.agent_type is not null
  )
  select coalesce(jsonb_agg(jsonb_build_object(
    'agent_type', y.agent_type, 'due', d.due, 'oldest_seconds', d.oldest,
    'served', exists (
      select from public.workers w
      where y.agent_type = any (w.agent_types) and w.lease_until > public.reactive_worker_now()))
    order by y.agent_type), '[]')
  into v_more
  from (select * from types where agent_type is not null limit 200) y
  cross join lateral (
    select count(*) as due, extract(epoch from public.reactive_worker_now() - min(t.available_at)) as oldest
    from (
      select t.available_at from public.todolist t
      where t.agent_status = 'pending' and t.agent_type = y.agent_type
        and t.available_at <= public.reactive_worker_now()
      order by t.available_at limit 10000) t) d
  where d.due > 0;
  return v_facts || jsonb_build_object('waiting', v_more);
end
$$;
comment on function public.reactive_worker_diagnose() is
  'Facts about tables, rights, Realtime and leftovers, for `reactive-worker doctor`. Changes nothing.';

-- How many rows come of those asked for: the API cuts answers off at max_rows and says so nowhere.
create function public.reactive_worker_rows(p_rows integer) returns setof integer
language sql immutable
set search_path = ''
as $$ select generate_series(1, least(p_rows, 1000)) $$;
comment on function public.reactive_worker_rows(integer) is
  'As many rows as are asked for, to see where the API cuts answers off.';

revoke all on function public.reactive_worker_diagnose(), public.reactive_worker_rows(integer)
  from public, anon, authenticated, service_role, reactive_worker;
grant execute on function public.reactive_worker_diagnose(), public.reactive_worker_rows(integer)
  to service_role, reactive_worker;

-- Moving in: a database that already holds the tables of process-gpt-agent-sdk keeps them, and every row in them.
--
-- On any other database this file looks whether the names are free, and makes the clock and the maker of ids. Where
-- `todolist` and `events` are, it brings them to the shape that the next file gives to a new database: columns are
-- added in place, values the old tables allowed and ours do not are mapped, and no row is lost. A test compares the two
-- shapes.
--
-- WHAT BECOMES OF THE ROWS
--   pending              stays, as old as it was: it runs as soon as a worker of its agent type starts
--   in_progress          stays for a moment, held by nobody: the first sweep puts it back to pending, unharmed. Stop the
--                        old server first, or it goes on with a task that a worker then runs again
--   completed, failed    stay; the exact A2A state and, for failed ones, `error` are filled in
--   no status at all     pending: that is what the old column's default meant
--   any other status     failed, with the old status in `error` and in the log: nothing here can know what it meant;
--                        `retry` runs it
--   events               are numbered in the order of created_at, 1, 2, 3 ... within their task
--
-- WHAT BECOMES OF THE REST
--   Policies on both tables are dropped: the old set-up let anon read and write everything, and policies only ever
--   add up. 20261101000700 says who may do what. Indexes, triggers and columns of your own stay.

-- Every name is looked at before anything is touched: a project that has a table `events` of its own learns it here, and
-- not from half of the files.
do $$
declare
  -- What this file and those after it make in the schema public; a test compares.
  v_relations constant text[] := array['todolist', 'events', 'workers', 'worker_mailbox', 'steering',
    'todolist_pending_best_idx', 'todolist_pending_due_idx', 'todolist_pending_owner_idx', 'todolist_held_idx',
    'todolist_taken_back_idx', 'todolist_idempotency_idx', 'todolist_counts_idx', 'todolist_failed_idx',
    'todolist_created_idx', 'todolist_owner_idx', 'todolist_ended_idx', 'todolist_failures_idx', 'events_created_idx',
    'events_todolist_id_seq_key', 'events_txid_idx', 'steering_todolist_idx'];
  v_functions constant text[] := array['reactive_worker_now', 'reactive_worker_uuid', 'reactive_worker_schema_version',
    'reactive_worker_diagnose', 'reactive_worker_rows', 'register_worker', 'heartbeat_worker', 'unregister_worker',
    'touch_probe', 'set_worker_state', 'list_workers', 'submit_todos', 'sweep_todos', 'reclaim_todos', 'claim_todos',
    'append_events', 'finish_todos', 'release_todos', 'cancel_todo', 'retry_todo', 'answer_todo', 'steer_todo',
    'read_steering', 'prune_todos', 'tail_events', 'push_ways', 'todo_stats', 'todo_timings'];
  -- Both tables of process-gpt-agent-sdk, or what looks like them: judged below.
  v_moving_in constant boolean := to_regclass('public.todolist') is not null and to_regclass('public.events') is not null;
  v_taken text;
  v_table text;
  v_name text;
begin
  if to_regclass('public.todolist') is not null and not v_moving_in then
    raise exception using errcode = '42P07',
      message = 'there is a table public.todolist, but no public.events beside it: these are not the tables of '
        'process-gpt-agent-sdk',
      hint = 'Nothing has been changed. Rename your own table (alter table public.todolist rename to ...), or use a '
        'project of its own for reactive-worker, then apply the migrations again.';
  end if;
  select string_agg(n.what, ', ' order by n.what) into v_taken
  from (
    select format('%s public.%I', case c.relkind when 'v' then 'view' when 'm' then 'materialized view'
      when 'i' then 'index' when 'I' then 'index' when 'S' then 'sequence' when 'f' then 'foreign table'
      when 'c' then 'type' else 'table' end, c.relname) as what
    from pg_catalog.pg_class c
    where c.relnamespace = 'public'::regnamespace and c.relname = any (v_relations)
      and not (v_moving_in and c.relname in ('todolist', 'events'))
    union all
    select format('type public.%I', y.typname) from pg_catalog.pg_type y
    where y.typnamespace = 'public'::regnamespace and y.typname = any (v_relations) and y.typrelid = 0
    union all
    select format('function public.%I(%s)', p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid))
    from pg_catalog.pg_proc p
    where p.pronamespace = 'public'::regnamespace and p.proname = any (v_functions)
    union all
    select 'schema reactive_worker_private' from pg_catalog.pg_namespace s where s.nspname = 'reactive_worker_private'
  ) n;
  if v_taken is not null then
    raise exception using errcode = '42P07',
      message = format('reactive-worker needs names that this database uses for something else: %s', v_taken),
      hint = 'Nothing has been changed. Rename what is your own (for example: alter table public.events rename to '
        'my_events), or move it into a schema of yours (alter table public.events set schema app), or use a project of '
        'its own for reactive-worker; then apply the migrations again.';
  end if;
  if not v_moving_in then
    return;
  end if;
  for v_table, v_name in
    select c.table_name, c.column_name
    from (values ('todolist', 'id', 'uuid'), ('todolist', 'agent_type', 'character varying'),
      ('todolist', 'prompt', 'text'), ('todolist', 'input_data', 'jsonb'),
      ('todolist', 'agent_status', 'character varying'), ('todolist', 'agent_output', 'jsonb'),
      ('todolist', 'priority', 'integer'), ('todolist', 'created_at', 'timestamp with time zone'),
      ('todolist', 'updated_at', 'timestamp with time zone'), ('todolist', 'started_at', 'timestamp with time zone'),
      ('todolist', 'completed_at', 'timestamp with time zone'), ('events', 'id', 'uuid'),
      ('events', 'todolist_id', 'uuid'), ('events', 'event_type', 'character varying'),
      ('events', 'event_data', 'jsonb'), ('events', 'context_id', 'character varying'),
      ('events', 'task_id', 'character varying'), ('events', 'message', 'text'),
      ('events', 'created_at', 'timestamp with time zone')) c (table_name, column_name, data_type)
    where not exists (
      select from information_schema.columns i
      where i.table_schema = 'public' and i.table_name = c.table_name and i.column_name = c.column_name
        and i.data_type = c.data_type)
  loop
    raise exception using errcode = '42P07',
      message = format('public.%s.%s is missing, or of another type than process-gpt-agent-sdk gave it', v_table, v_name),
      hint = 'Nothing has been changed. Rename the table, or change the column, then apply the migrations again.';
  end loop;
end
$$;

-- The clock comes first because column defaults read it.
create function public.reactive_worker_now() returns timestamptz
language plpgsql stable
set search_path = ''
as $$
begin
  return now()
    + coalesce(nullif(current_setting('app.settings.reactive_worker_clock_offset', true), '')::interval, interval '0');
end
$$;
comment on function public.reactive_worker_now() is
  'The time reactive-worker goes by; tests move it with app.settings.reactive_worker_clock_offset, an interval.';

-- Ids that grow with time (UUIDv7): neighbours in time are neighbours in every index, so that a small event costs a
-- tenth of the write-ahead log that a random id costs after a checkpoint. PostgreSQL 18 makes them itself.
create function public.reactive_worker_uuid() returns uuid
language plpgsql volatile
set search_path = ''
as $$
begin
  if current_setting('server_version_num')::integer >= 180000 then
    return uuidv7();
  end if;
  -- A random one, whose first 48 bits become the milliseconds since 1970 and whose version becomes 7 (4 and the bits
  -- 52 and 53).
  return encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
    placing substring(int8send(floor(extract(epoch from clock_timestamp()) * 1000)::bigint) from 3) from 1 for 6),
    52, 1), 53, 1), 'hex')::uuid;
end
$$;
comment on function public.reactive_worker_uuid() is 'A new UUIDv7: the default of ids.';

do $$
declare
  v_name text;
  v_table text;
  v_triggers text[];
begin
  if to_regclass('public.todolist') is null then
    return;
  end if;
  -- Old triggers must neither touch updated_at nor announce anything while rows are mapped.
  select array_agg(format('alter table %s %%s trigger %I', t.tgrelid::regclass, t.tgname)) into v_triggers
  from pg_catalog.pg_trigger t
  where t.tgrelid in ('public.todolist'::regclass, 'public.events'::regclass) and not t.tgisinternal
    and t.tgenabled = 'O';
  foreach v_name in array coalesce(v_triggers, '{}') loop
    execute format(v_name, 'disable');
  end loop;

  for v_table, v_name in
    select p.tablename, p.policyname from pg_catalog.pg_policies p
    where p.schemaname = 'public' and p.tablename in ('todolist', 'events')
  loop
    execute format('drop policy %I on public.%I', v_name, v_table);
  end loop;
  -- Checks of their own on the status would refuse the states that are new.
  for v_name in
    select c.conname from pg_catalog.pg_constraint c
    where c.conrelid = 'public.todolist'::regclass and c.contype = 'c'
      and pg_catalog.pg_get_constraintdef(c.oid) like '%agent_status%'
  loop
    execute format('alter table public.todolist drop constraint %I', v_name);
  end loop;

  alter table public.todolist
    add column available_at timestamptz, add column attempt integer, add column failures integer,
    add column max_failures integer, add column timeout_seconds integer, add column worker_id uuid,
    add column cancel_requested_at timestamptz, add column cancel_reason text, add column context_id varchar(255),
    add column task_state varchar(50), add column idempotency_key text, add column owner_id uuid,
    add column error jsonb;

  -- Times that not every client can read (infinity, the year 12000) are no times.
  update public.todolist t
  set created_at = case when t.created_at >= '1900-01-01' and t.created_at < '9999-01-01' then t.created_at end,
    updated_at = case when t.updated_at >= '1900-01-01' and t.updated_at < '9999-01-01' then t.updated_at end,
    started_at = case when t.started_at >= '1900-01-01' and t.started_at < '9999-01-01' then t.started_at end,
    completed_at = case when t.completed_at >= '1900-01-01' and t.completed_at < '9999-01-01' then t.completed_at end
  where least(t.created_at, t.updated_at, t.started_at, t.completed_at) < '1900-01-01'
    or greatest(t.created_at, t.updated_at, t.started_at, t.completed_at) >= '9999-01-01';

  -- Everything that is judged below is judged by the status as it was.
  update public.todolist t
  set agent_status = s.status,
    priority = coalesce(t.priority, 0),
    created_at = s.created_at,
    updated_at = coalesce(t.updated_at, s.created_at),
    completed_at = case when s.status in ('completed', 'failed', 'cancelled')
      then coalesce(t.completed_at, t.updated_at, s.created_at) end,
    available_at = s.created_at,
    attempt = case when t.started_at is null then 0 else 1 end,
    failures = case when s.status = 'failed' then 1 else 0 end,
    max_failures = 3,
    task_state = case s.status
      when 'pending' then 'TASK_STATE_SUBMITTED' when 'in_progress' then 'TASK_STATE_WORKING'
      when 'input_required' then 'TASK_STATE_INPUT_REQUIRED' when 'completed' then 'TASK_STATE_COMPLETED'
      when 'cancelled' then 'TASK_STATE_CANCELED' else 'TASK_STATE_FAILED' end,
    error = case
      when s.known is null then jsonb_build_object('type', 'UnknownStatus',
        'message', format('had the status %s before the move', to_json(t.agent_status)))
      when s.status = 'failed' then jsonb_build_object('type', 'Failed', 'message',
        coalesce(t.agent_output #>> '{error,message}', t.agent_output ->> 'error', 'failed before the move')) end
  from (
    select o.id, coalesce(k.status, 'failed') as status, k.status as known,
      coalesce(o.created_at, o.started_at, o.updated_at, now()) as created_at
    from public.todolist o
    left join lateral (
      select y.status
      from unnest(array['pending', 'in_progress', 'input_required', 'completed', 'failed', 'cancelled']) y (status)
      where y.status = coalesce(lower(btrim(o.agent_status)), 'pending')
    ) k on true
  ) s
  where s.id = t.id;

  alter table public.todolist
    alter column agent_status set not null,
    alter column priority set not null,
    alter column created_at set not null, alter column created_at set default public.reactive_worker_now(),
    alter column updated_at set not null, alter column updated_at set default public.reactive_worker_now(),
    alter column available_at set not null, alter column available_at set default public.reactive_worker_now(),
    alter column attempt set not null, alter column attempt set default 0,
    alter column failures set not null, alter column failures set default 0,
    alter column max_failures set not null, alter column max_failures set default 3,
    alter column task_state set default 'TASK_STATE_SUBMITTED',
    alter column owner_id set default auth.uid(),
    alter column id set default public.reactive_worker_uuid(),
    add constraint todolist_agent_status_known check (
      agent_status in ('pending', 'in_progress', 'input_required', 'completed', 'failed', 'cancelled')),
    add constraint todolist_attempt_not_negative check (attempt >= 0),
    add constraint todolist_failures_not_negative check (failures >= 0),
    add constraint todolist_max_failures_positive check (max_failures >= 1),
    add constraint todolist_timeout_positive check (timeout_seconds > 0),
    add constraint todolist_idempotency_key_length check (char_length(idempotency_key) between 1 and 255);

  alter table public.events add column seq bigint, add column attempt integer, add column worker_id uuid;
  update public.events e
  set seq = n.seq, created_at = n.created_at
  from (
    select o.id, coalesce(o.created_at, t.created_at) as created_at,
      row_number() over (partition by o.todolist_id order by coalesce(o.created_at, t.created_at), o.id) as seq
    from public.events o
    join public.todolist t on t.id = o.todolist_id
  ) n
  where n.id = e.id;
  alter table public.events
    alter column id set default public.reactive_worker_uuid(),
    alter column created_at set not null, alter column created_at set default public.reactive_worker_now(),
    alter column seq set not null,
    add constraint events_todolist_id_seq_key unique (todolist_id, seq),
    add constraint events_seq_positive check (seq >= 1);

  -- Log and status agree: what this file has failed, it says.
  insert into public.events (todolist_id, event_type, event_data, message, created_at, seq, task_id)
  select t.id, 'task_failed', jsonb_build_object('statusUpdate', jsonb_build_object(
      'taskId', t.id, 'contextId', t.id, 'status', jsonb_build_object('state', 'TASK_STATE_FAILED'))),
    t.error ->> 'message', now(),
    (select coalesce(max(e.seq), 0) + 1 from public.events e where e.todolist_id = t.id), t.id::text
  from public.todolist t
  where t.error ->> 'type' = 'UnknownStatus';

  -- Events go with their task.
  for v_name in
    select c.conname from pg_catalog.pg_constraint c
    where c.conrelid = 'public.events'::regclass and c.contype = 'f' and c.confrelid = 'public.todolist'::regclass
  loop
    execute format('alter table public.events drop constraint %I', v_name);
  end loop;
  alter table public.events
    add constraint events_todolist_id_fkey foreign key (todolist_id) references public.todolist (id) on delete cascade;

  foreach v_name in array coalesce(v_triggers, '{}') loop
    execute format(v_name, 'enable');
  end loop;
end
$$;

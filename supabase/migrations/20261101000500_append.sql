-- While a task runs: what it says. Every write names (worker, attempt).

-- What is wrong with one event; null when nothing is. One expression, as it is evaluated for every event that is
-- stored.
create function reactive_worker_private.event_problem(p_event jsonb) returns text
language plpgsql immutable
set search_path = ''
as $$
begin
  return case
    when jsonb_typeof(p_event) <> 'object' then 'an event must be an object'
    when coalesce(p_event ->> 'id' !~* '^[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}$', true)
      then 'an event''s id must be a uuid'
    when coalesce((p_event -> 'seq')::text !~ '^[1-9][0-9]{0,17}$', true)
      then 'an event''s seq must be a whole number of at least 1'
    when coalesce(jsonb_typeof(p_event -> 'event_type') <> 'string', true)
      or char_length(p_event ->> 'event_type') not between 1 and 50
      then 'an event''s event_type must be a text of 1 to 50 characters'
    when coalesce(jsonb_typeof(p_event -> 'event_data') <> 'object', true)
      then 'an event''s event_data must be an object'
    when char_length(p_event ->> 'context_id') > 255 or char_length(p_event ->> 'task_id') > 255
      then 'an event''s context_id and task_id must have at most 255 characters' end;
end
$$;

-- Log and status agree because only the statement that ends a task writes that it ended.
create function reactive_worker_private.ends_task(p_event_type text) returns boolean
language plpgsql immutable
set search_path = ''
as $$
begin
  return p_event_type in ('task_completed', 'task_failed', 'task_rejected', 'task_cancelled');
end
$$;

-- Why what an executor said cannot be kept: its JSON could not be read again. Deeper than input may be, for events wrap
-- what they carry. p_value is part of an argument, so that its binary size is that of all of it. Batches are looked at
-- as a whole, and only if that tells something event by event.
create function reactive_worker_private.said_problem(p_what text, p_value jsonb) returns text
language plpgsql immutable
set search_path = ''
as $$
begin
  return p_what || ' ' || reactive_worker_private.json_problem(p_value, pg_column_size(p_value), 100, 4000);
end
$$;

-- Stores events of runs that are held, whose rows are locked. Returns how many are new, and the runs whose events do not
-- follow what is stored: of those nothing is stored.
create function reactive_worker_private.store_events(
  p_worker_id uuid, p_events jsonb, out stored integer, out refused jsonb
)
language plpgsql
set search_path = ''
as $$
declare
  v_now timestamptz := public.reactive_worker_now();
begin
  with given as materialized (
    select r.* from jsonb_to_recordset(p_events) as r (id uuid, todolist_id uuid, attempt integer, seq bigint,
      event_type text, event_data jsonb, message text, context_id text, task_id text)
  ), runs as materialized (
    select g.todolist_id as id, g.attempt, t.context_id,
      (select coalesce(max(e.seq), 0) from public.events e where e.todolist_id = g.todolist_id) as last
    from (select distinct g.todolist_id, g.attempt from given g) g
    join public.todolist t on t.id = g.todolist_id
  ), numbered as materialized (
    -- Those up to the last one are sent again: they have the id they had, or collide.
    select g.*, r.context_id as task_context_id, r.last,
      g.seq > r.last and g.seq <> r.last + count(*) filter (where g.seq > r.last)
        over (partition by g.todolist_id order by g.seq) as gap
    from given g join runs r on r.id = g.todolist_id
  ), gaps as materialized (
    select n.todolist_id as id, n.attempt, min(n.seq) as seq, n.last
    from numbered n where n.gap group by n.todolist_id, n.attempt, n.last
  ), kept as (
    insert into public.events
      (id, todolist_id, seq, event_type, event_data, message, context_id, task_id, created_at, attempt, worker_id)
    select n.id, n.todolist_id, n.seq, n.event_type, n.event_data, n.message, coalesce(n.context_id, n.task_context_id),
      coalesce(n.task_id, n.todolist_id::text), v_now, n.attempt, p_worker_id
    from numbered n
    where n.todolist_id not in (select g.id from gaps g)
    order by n.todolist_id, n.seq
    on conflict (id) do nothing
    returning 1
  )
  select (select count(*) from kept), coalesce(jsonb_agg(jsonb_build_object('id', g.id, 'attempt', g.attempt,
    'reason', format('seq %s does not follow: the last one stored is %s', g.seq, g.last))), '[]')
  into stored, refused
  from gaps g;
end
$$;

-- Returns what became of the runs, as [{"id", "attempt"}]: `lost` ones are no longer this worker's; `busy` ones are
-- locked by somebody else, their events may be sent again; of `refused` ones, with the reason, nothing was stored. All
-- other events are stored, or were before.
create function public.append_events(p_worker_id uuid, p_events jsonb) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  v_problem text;
  v_ids uuid[];
  v_busy_ids uuid[];
  v_events jsonb;
  v_stored integer := 0;
  v_more integer;
  v_lost jsonb;
  v_busy jsonb;
  v_refused jsonb := '[]';
  v_bad jsonb;
  v_run record;
begin
  if p_events is null or jsonb_typeof(p_events) <> 'array' then
    raise exception using errcode = '22023', message = 'p_events must be an array of objects';
  end if;
  select format('event %s of task %s: %s', r.n, coalesce(r.value ->> 'todolist_id', 'null'), p.problem) into v_problem
  from jsonb_array_elements(p_events) with ordinality r (value, n)
  cross join lateral (
    select coalesce(reactive_worker_private.event_problem(r.value), case
      when coalesce(r.value ->> 'todolist_id' !~* '^[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}$', true)
        then 'todolist_id must be a uuid'
      when coalesce((r.value -> 'attempt')::text !~ '^[0-9]{1,9}$', true) then 'attempt must be a whole number'
      when r.value ->> 'event_type' in ('task_completed', 'task_failed', 'task_rejected', 'task_cancelled')
        then format('%s is written by finish_todos only', r.value ->> 'event_type') end)
  ) p (problem)
  where p.problem is not null
  order by r.n limit 1;
  if found then
    raise exception using errcode = '22023', message = v_problem;
  end if;

  -- Shared, so that nobody can take a task away before this is committed, and without rewriting its row. By id
  -- alone: with the fence in the condition the planner might walk the index of held rows, which is full of dead
  -- entries on a busy worker.
  v_ids := array(select distinct (e ->> 'todolist_id')::uuid from jsonb_array_elements(p_events) e);
  v_busy_ids := reactive_worker_private.lock_todos(v_ids, p_share => true);
  v_problem := reactive_worker_private.said_problem('p_events', p_events);
  with given as materialized (
    select (e ->> 'todolist_id')::uuid as id, (e ->> 'attempt')::integer as attempt,
      min(case when v_problem is not null then
        reactive_worker_private.said_problem('event_data', e -> 'event_data') end) as problem
    from jsonb_array_elements(p_events) e group by 1, 2
  ), runs as materialized (
    select r.id, r.attempt, t.id = any (v_busy_ids) as busy, r.problem,
      coalesce(t.agent_status = 'in_progress' and t.worker_id = p_worker_id and t.attempt = r.attempt, false) as held
    from given r
    left join public.todolist t on t.id = r.id
  )
  select
    coalesce(jsonb_agg(jsonb_build_object('id', r.id, 'attempt', r.attempt)) filter (where not r.held), '[]'),
    coalesce(jsonb_agg(jsonb_build_object('id', r.id, 'attempt', r.attempt)) filter (where r.held and r.busy), '[]'),
    coalesce(jsonb_agg(jsonb_build_object('id', r.id, 'attempt', r.attempt, 'reason', r.problem))
      filter (where r.held and not r.busy and r.problem is not null), '[]')
  into v_lost, v_busy, v_refused
  from runs r;

  v_events := p_events;
  if v_lost <> '[]' or v_busy <> '[]' or v_refused <> '[]' then
    select coalesce(jsonb_agg(e.value order by e.n), '[]') into v_events
    from jsonb_array_elements(p_events) with ordinality e (value, n)
    where not exists (
      select from jsonb_to_recordset(v_lost || v_busy || v_refused) as r (id uuid, attempt integer)
      where r.id = (e.value ->> 'todolist_id')::uuid and r.attempt = (e.value ->> 'attempt')::integer);
  end if;
  begin
    select s.stored, s.refused into v_stored, v_bad from reactive_worker_private.store_events(p_worker_id, v_events) s;
    v_refused := v_refused || v_bad;
  exception when others then
    if reactive_worker_private.is_weather(sqlstate) then
      raise;
    end if;
    v_stored := 0;
    for v_run in
      select (e.value ->> 'todolist_id')::uuid as id, (e.value ->> 'attempt')::integer as attempt,
        jsonb_agg(e.value order by e.n) as events
      from jsonb_array_elements(v_events) with ordinality e (value, n) group by 1, 2
    loop
      begin
        select s.stored, s.refused into v_more, v_bad
        from reactive_worker_private.store_events(p_worker_id, v_run.events) s;
        v_stored := v_stored + v_more;
        v_refused := v_refused || v_bad;
      exception when others then
        if reactive_worker_private.is_weather(sqlstate) then
          raise;
        elsif reactive_worker_private.is_busy(sqlstate) then
          v_busy := v_busy || jsonb_build_object('id', v_run.id, 'attempt', v_run.attempt);
        else
          v_refused := v_refused || jsonb_build_object('id', v_run.id, 'attempt', v_run.attempt, 'reason', sqlerrm);
        end if;
      end;
    end loop;
  end;
  return jsonb_build_object('stored', v_stored, 'lost', v_lost, 'busy', v_busy, 'refused', v_refused);
end
$$;

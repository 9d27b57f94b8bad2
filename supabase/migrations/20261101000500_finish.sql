-- While a task runs and when a run ends: events, outcomes, hand-backs. Every write names (worker, attempt).

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

create function public.append_events(p_worker_id uuid, p_events jsonb) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  v_now timestamptz := public.reactive_worker_now();
  v_problem text;
  v_ids uuid[];
  v_stored integer;
  v_lost jsonb;
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
  select array_agg(distinct (e ->> 'todolist_id')::uuid) into v_ids from jsonb_array_elements(p_events) e;
  perform 1 from public.todolist t where t.id = any (v_ids) order by t.id for share;

  with given as materialized (
    select r.*, t.context_id as task_context_id,
      coalesce(t.agent_status = 'in_progress' and t.worker_id = p_worker_id and t.attempt = r.attempt, false) as held
    from jsonb_to_recordset(p_events) as r (id uuid, todolist_id uuid, attempt integer, seq bigint, event_type text,
      event_data jsonb, message text, context_id text, task_id text)
    left join public.todolist t on t.id = r.todolist_id
  ), stored as (
    insert into public.events
      (id, todolist_id, seq, event_type, event_data, message, context_id, task_id, created_at, attempt, worker_id)
    select g.id, g.todolist_id, g.seq, g.event_type, g.event_data, g.message,
      coalesce(g.context_id, g.task_context_id), coalesce(g.task_id, g.todolist_id::text), v_now, g.attempt, p_worker_id
    from given g
    where g.held
    order by g.todolist_id, g.seq
    on conflict (id) do nothing
    returning 1
  )
  select (select count(*) from stored), (select jsonb_agg(distinct g.todolist_id) from given g where not g.held)
  into v_stored, v_lost;

  return jsonb_build_object('stored', v_stored, 'lost', coalesce(v_lost, '[]'));
end
$$;

-- What is wrong with one result of finish_todos; null when nothing is.
create function reactive_worker_private.result_problem(p_result jsonb) returns text
language plpgsql immutable
set search_path = ''
as $$
declare
  v_kind text;
  v_events jsonb;
  v_count integer;
  v_last text;
  v_problem text;
begin
  if jsonb_typeof(p_result) <> 'object' then
    return 'a result must be an object';
  elsif not reactive_worker_private.is_uuid(p_result ->> 'todolist_id') then
    return 'todolist_id must be a uuid';
  elsif not reactive_worker_private.is_whole(p_result -> 'attempt', 0, 2147483647) then
    return 'attempt must be a whole number';
  end if;
  v_kind := p_result ->> 'kind';
  if v_kind is null or v_kind not in ('completed', 'failed', 'cancelled', 'input_required', 'retry') then
    return format('kind must be completed, failed, cancelled, input_required or retry, got %s',
      coalesce(v_kind, 'null'));
  elsif coalesce(jsonb_typeof(p_result -> 'error') not in ('object', 'null'), false) then
    return 'error must be an object';
  elsif char_length(p_result ->> 'task_state') > 50 then
    return 'task_state must have at most 50 characters';
  elsif coalesce(jsonb_typeof(p_result -> 'counts_as_failure') not in ('boolean', 'null'), false) then
    return 'counts_as_failure must be true or false';
  elsif jsonb_typeof(p_result -> 'retry_after_seconds') <> 'null'
    and (jsonb_typeof(p_result -> 'retry_after_seconds') <> 'number'
      or (p_result ->> 'retry_after_seconds')::numeric not between 0 and 3153600000) then
    return 'retry_after_seconds must be a number between 0 and 3153600000 (a hundred years)';
  end if;

  v_events := p_result -> 'events';
  if jsonb_typeof(v_events) is distinct from 'array' or jsonb_array_length(v_events) = 0 then
    return 'events must be an array that ends with the event of this outcome';
  end if;
  v_count := jsonb_array_length(v_events);
  select reactive_worker_private.event_problem(e) into v_problem
  from jsonb_array_elements(v_events) e
  where reactive_worker_private.event_problem(e) is not null limit 1;
  if found then
    return v_problem;
  end if;
  select format('%s is allowed as the last event only', e.value ->> 'event_type') into v_problem
  from jsonb_array_elements(v_events) with ordinality e (value, n)
  where e.n < v_count and reactive_worker_private.ends_task(e.value ->> 'event_type') limit 1;
  if found then
    return v_problem;
  end if;
  v_last := v_events -> -1 ->> 'event_type';
  if not (case v_kind
    when 'completed' then v_last = 'task_completed'
    when 'cancelled' then v_last = 'task_cancelled'
    when 'input_required' then v_last in ('task_input_required', 'task_auth_required')
    -- A retry brings the event for the case that its budget turns out to be spent.
    else v_last in ('task_failed', 'task_rejected') end)
  then
    return format('a %s result cannot end with %s', v_kind, v_last);
  end if;
  return null;
end
$$;

create function public.finish_todos(p_worker_id uuid, p_results jsonb) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  v_now timestamptz := public.reactive_worker_now();
  v_problem text;
  v_ids uuid[];
  v_results jsonb;
begin
  if p_results is null or jsonb_typeof(p_results) <> 'array' then
    raise exception using errcode = '22023', message = 'p_results must be an array of objects';
  end if;
  select format('task %s: %s', coalesce(r.value ->> 'todolist_id', 'null'), p.problem) into v_problem
  from jsonb_array_elements(p_results) with ordinality r (value, n)
  cross join lateral (select reactive_worker_private.result_problem(r.value)) p (problem)
  where p.problem is not null
  order by r.n limit 1;
  if found then
    raise exception using errcode = '22023', message = v_problem;
  end if;
  select format('task %s: more than one result in one batch', min(r ->> 'todolist_id')) into v_problem
  from jsonb_array_elements(p_results) r
  group by (r ->> 'todolist_id')::uuid having count(*) > 1 limit 1;
  if found then
    raise exception using errcode = '22023', message = v_problem;
  end if;

  select array_agg((r ->> 'todolist_id')::uuid) into v_ids from jsonb_array_elements(p_results) r;
  perform 1 from public.todolist t where t.id = any (v_ids) order by t.id for update;

  -- One statement for log and status, with a snapshot younger than the locks.
  with given as materialized (
    select r.n, (r.value ->> 'todolist_id')::uuid as id, (r.value ->> 'attempt')::integer as attempt,
      r.value ->> 'kind' as kind,
      nullif(r.value -> 'output', 'null') as output, nullif(r.value -> 'error', 'null') as error,
      r.value ->> 'task_state' as task_state,
      make_interval(secs => coalesce((r.value ->> 'retry_after_seconds')::double precision, 0)) as retry_after,
      coalesce((r.value ->> 'counts_as_failure')::boolean, true) as counts,
      r.value -> 'events' as events, r.value -> 'events' -> -1 as last
    from jsonb_array_elements(p_results) with ordinality r (value, n)
  ), seen as materialized (
    select g.*, t.agent_status, t.context_id, t.cancel_reason, t.max_failures, t.id is not null as there,
      t.cancel_requested_at is not null as stop,
      t.failures + (g.kind = 'retry' and g.counts)::integer as failures,
      coalesce(t.agent_status = 'in_progress' and t.worker_id = p_worker_id and t.attempt = g.attempt, false) as held,
      exists (select from public.events e
              where e.id = (g.last ->> 'id')::uuid and e.todolist_id = g.id) as repeated
    from given g
    left join public.todolist t on t.id = g.id
  ), decided as materialized (
    select s.*, s.status in ('completed', 'failed', 'cancelled') as ends,
      coalesce(s.error, jsonb_build_object('type', 'TaskFailed', 'message', coalesce(s.last ->> 'message', 'failed')))
        as failure
    from (
      select s.*, case
        when s.stop and s.kind in ('retry', 'input_required') then 'cancelled'
        when s.kind <> 'retry' then s.kind
        when s.counts and s.failures >= s.max_failures then 'failed'
        else 'pending' end as status
      from seen s where s.held and not s.repeated
    ) s
  ), said as (
    -- May repeat what an earlier append stored although its answer got lost.
    insert into public.events
      (id, todolist_id, seq, event_type, event_data, message, context_id, task_id, created_at, attempt, worker_id)
    select (e.value ->> 'id')::uuid, d.id, (e.value ->> 'seq')::bigint, e.value ->> 'event_type',
      e.value -> 'event_data', e.value ->> 'message', coalesce(e.value ->> 'context_id', d.context_id),
      coalesce(e.value ->> 'task_id', d.id::text), v_now, d.attempt, p_worker_id
    from decided d
    cross join lateral jsonb_array_elements(d.events) with ordinality e (value, k)
    where e.k < jsonb_array_length(d.events)
    on conflict (id) do nothing
  ), announced as (
    insert into public.events
      (id, todolist_id, seq, event_type, event_data, message, context_id, task_id, created_at, attempt, worker_id)
    select (d.last ->> 'id')::uuid, d.id, (d.last ->> 'seq')::bigint, l.event_type, l.event_data, l.message,
      coalesce(d.last ->> 'context_id', d.context_id), coalesce(d.last ->> 'task_id', d.id::text), v_now, d.attempt,
      p_worker_id
    from decided d
    cross join lateral (
      select 'task_retrying', d.last ->> 'message', jsonb_build_object('retry', jsonb_build_object(
        'failures', d.failures, 'maxFailures', d.max_failures, 'error', d.error,
        'availableAt', reactive_worker_private.rfc3339(v_now + d.retry_after)))
      where d.status = 'pending'
      union all
      select 'task_cancelled', d.cancel_reason,
        reactive_worker_private.status_update(d.id, d.context_id, 'TASK_STATE_CANCELED', v_now, d.cancel_reason)
      where d.status = 'cancelled' and d.kind <> 'cancelled'
      union all
      select d.last ->> 'event_type', d.last ->> 'message', d.last -> 'event_data'
      where d.status = d.kind or d.status = 'failed'
    ) l (event_type, message, event_data)
  ), changed as (
    update public.todolist t
    set agent_status = d.status,
      task_state = case
        when d.status = 'pending' then t.task_state
        when d.status = 'cancelled' and d.kind <> 'cancelled' then 'TASK_STATE_CANCELED'
        else coalesce(d.task_state, case d.status
          when 'completed' then 'TASK_STATE_COMPLETED' when 'cancelled' then 'TASK_STATE_CANCELED'
          when 'failed' then 'TASK_STATE_FAILED' else 'TASK_STATE_INPUT_REQUIRED' end) end,
      agent_output = case d.status
        when 'completed' then d.output
        when 'failed' then coalesce(d.output, jsonb_build_object('error', d.failure))
        when 'cancelled' then coalesce(d.output, t.agent_output)
        else t.agent_output end,
      error = case d.status
        when 'failed' then d.failure when 'input_required' then t.error else d.error end,
      failures = case when d.status = 'cancelled' then t.failures else d.failures end,
      available_at = case when d.status = 'pending' then v_now + d.retry_after else t.available_at end,
      completed_at = case when d.ends then v_now end,
      -- An ended task remembers who ran it; a waiting one is nobody's.
      worker_id = case when d.ends then t.worker_id end
    from decided d
    where t.id = d.id
    returning t.id, t.agent_status
  )
  select jsonb_agg(jsonb_build_object(
    'todolist_id', s.id,
    'result', case when c.id is not null then 'finished' when s.repeated then 'repeated' else 'lost' end,
    'agent_status', coalesce(c.agent_status, s.agent_status)) order by s.n)
  into v_results
  from seen s
  left join changed c on c.id = s.id;

  return jsonb_build_object('results', coalesce(v_results, '[]'));
end
$$;

create function public.release_todos(p_worker_id uuid, p_items jsonb) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  v_ids uuid[];
  v_lost jsonb;
begin
  perform reactive_worker_private.check_runs('p_items', p_items);
  select array_agg(r.id) into v_ids from jsonb_to_recordset(p_items) as r (id uuid);
  perform 1 from public.todolist t where t.id = any (v_ids) order by t.id for update;
  with runs as materialized (
    select distinct t.id,
      t.agent_status = 'in_progress' and t.worker_id = p_worker_id and t.attempt = r.attempt as held
    from jsonb_to_recordset(p_items) as r (id uuid, attempt integer)
    join public.todolist t on t.id = r.id
  )
  select array_agg(r.id) into v_ids from runs r where r.held;
  perform reactive_worker_private.put_back(v_ids, p_lost => false);
  select jsonb_agg(distinct r.id) into v_lost
  from jsonb_to_recordset(p_items) as r (id uuid)
  where r.id <> all (coalesce(v_ids, '{}'));
  return jsonb_build_object('released', coalesce(to_jsonb(v_ids), '[]'), 'lost', coalesce(v_lost, '[]'));
end
$$;

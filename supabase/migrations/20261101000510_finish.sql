-- When a run ends: outcomes and hand-backs. Every write names (worker, attempt).

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
  select 'events must be numbered one after the other' into v_problem
  from jsonb_array_elements(v_events) with ordinality e (value, n)
  where (e.value -> 'seq')::bigint <> (v_events -> 0 -> 'seq')::bigint + e.n - 1 limit 1;
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

-- The ends of runs, whose rows are locked: log and status together.
create function reactive_worker_private.end_runs(p_worker_id uuid, p_results jsonb) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  v_now timestamptz := public.reactive_worker_now();
  v_results jsonb;
begin
  -- One statement for log and status, with a snapshot younger than the locks.
  with given as materialized (
    select r.n, (r.value ->> 'todolist_id')::uuid as id, (r.value ->> 'attempt')::integer as attempt,
      r.value ->> 'kind' as kind,
      nullif(r.value -> 'output', 'null') as output, nullif(r.value -> 'error', 'null') as error,
      r.value ->> 'task_state' as task_state,
      make_interval(secs => coalesce((r.value ->> 'retry_after_seconds')::double precision, 0)) as retry_after,
      coalesce((r.value ->> 'counts_as_failure')::boolean, true) as counts,
      r.value -> 'events' as events, r.value -> 'events' -> -1 as last,
      (r.value #>> '{events,0,seq}')::bigint as first_seq
    from jsonb_array_elements(p_results) with ordinality r (value, n)
  ), seen as materialized (
    select g.*, t.agent_status, t.context_id, t.cancel_reason, t.max_failures,
      (select coalesce(max(e.seq), 0) from public.events e where e.todolist_id = g.id) as stored,
      t.cancel_requested_at is not null as stop,
      t.failures + (g.kind = 'retry' and g.counts)::integer as failures,
      coalesce(t.agent_status = 'in_progress' and t.worker_id = p_worker_id and t.attempt = g.attempt, false) as held,
      r.yes is not null as repeated
    from given g
    -- LIMIT keeps the planner from reading all events into a hash.
    left join lateral (
      select true as yes from public.events e
      where e.id = (g.last ->> 'id')::uuid and e.todolist_id = g.id limit 1) r on true
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
      from seen s where s.held and not s.repeated and s.first_seq <= s.stored + 1
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
  select jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
    'todolist_id', s.id, 'attempt', s.attempt,
    'result', case when c.id is not null then 'finished' when s.repeated then 'repeated' when s.held then 'refused'
      else 'lost' end,
    'reason', case when c.id is null and s.held and not s.repeated
      then format('seq %s does not follow: the last one stored is %s', s.first_seq, s.stored) end))
    || jsonb_build_object('agent_status', coalesce(c.agent_status, s.agent_status)) order by s.n)
  into v_results
  from seen s
  left join changed c on c.id = s.id;
  -- A run that ended has told that it does not kill its worker, and that it can be written.
  if exists (select from reactive_worker_private.suspects) or exists (select from reactive_worker_private.refusals) then
    delete from reactive_worker_private.suspects s
    where s.todolist_id in (select (r ->> 'todolist_id')::uuid from jsonb_array_elements(v_results) r
                            where r ->> 'result' = 'finished');
    delete from reactive_worker_private.refusals s
    where s.todolist_id in (select (r ->> 'todolist_id')::uuid from jsonb_array_elements(v_results) r
                            where r ->> 'result' = 'finished');
  end if;
  return coalesce(v_results, '[]');
end
$$;

-- The same, or each by itself when that is refused. An end that is refused twice for a reason that is its row's puts the
-- row back, and counts a failure: `agent_status` says what it is now, and the worker may forget the run.
create function reactive_worker_private.end_each(p_worker_id uuid, p_results jsonb) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  v_results jsonb := '[]';
  v_result jsonb;
  v_one jsonb;
  v_reason text;
  v_busy boolean;
begin
  begin
    v_results := reactive_worker_private.end_runs(p_worker_id, p_results);
  exception when others then
    if reactive_worker_private.is_weather(sqlstate) then
      raise;
    end if;
    v_results := '[]';
    for v_result in select r from jsonb_array_elements(p_results) r loop
      begin
        v_one := reactive_worker_private.end_runs(p_worker_id, jsonb_build_array(v_result));
      exception when others then
        v_reason := sqlerrm;
        v_busy := reactive_worker_private.is_busy(sqlstate);
        if reactive_worker_private.is_weather(sqlstate) then
          raise;
        end if;
        v_one := jsonb_build_array(jsonb_build_object('todolist_id', v_result ->> 'todolist_id',
          'attempt', v_result -> 'attempt', 'result', case when v_busy then 'busy' else 'refused' end,
          'reason', v_reason, 'agent_status', 'in_progress'));
      end;
      v_results := v_results || v_one;
    end loop;
  end;
  if not v_results @> '[{"result": "refused"}]' then
    return v_results;
  end if;
  return (
    select jsonb_agg(case when r.value ->> 'result' = 'refused'
      then reactive_worker_private.refuse_end(r.value) else r.value end order by r.n)
    from jsonb_array_elements(v_results) with ordinality r (value, n));
end
$$;

-- Notes that an end was refused, and gives it up when that happens again.
create function reactive_worker_private.refuse_end(p_result jsonb) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  v_id uuid := (p_result ->> 'todolist_id')::uuid;
  v_times integer := reactive_worker_private.note_refusal(
    v_id, (p_result ->> 'attempt')::integer, p_result ->> 'reason');
begin
  if v_times < 2 then
    return p_result;
  end if;
  return p_result || jsonb_build_object('agent_status', coalesce(reactive_worker_private.count_failure(
    v_id, reactive_worker_private.refusal(p_result ->> 'reason')), 'in_progress'));
end
$$;

-- Returns for each result, in their order, {"todolist_id", "attempt", "result", "agent_status", "reason"}; result is
--   finished   it is written
--   repeated   it was written before
--   lost       the run is no longer this worker's
--   busy       somebody else has locked the row: to be sent again
--   refused    it cannot be written, for this reason. While agent_status says in_progress it may be sent again, the same
--              or another; otherwise the row has been put back or failed, and the run is over
create function public.finish_todos(p_worker_id uuid, p_results jsonb) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  v_problem text;
  v_ids uuid[];
  v_busy uuid[];
  v_now jsonb := p_results;
  v_later jsonb := '[]';
  v_refused jsonb;
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

  v_ids := array(select (r ->> 'todolist_id')::uuid from jsonb_array_elements(p_results) r);
  v_busy := reactive_worker_private.lock_todos(v_ids);
  -- What could not be read again is not written. Who no longer holds the run hears that, and not what was wrong with it.
  if reactive_worker_private.said_problem('p_results', p_results) is not null then
    with problems as materialized (
      select r.value, coalesce(
        reactive_worker_private.said_problem('output', nullif(r.value -> 'output', 'null')),
        reactive_worker_private.said_problem('error', nullif(r.value -> 'error', 'null')),
        (select min(reactive_worker_private.said_problem('event_data', e -> 'event_data'))
         from jsonb_array_elements(r.value -> 'events') e)) as problem
      from jsonb_array_elements(p_results) r (value)
    )
    select jsonb_agg(jsonb_build_object('todolist_id', p.value ->> 'todolist_id', 'attempt', p.value -> 'attempt',
      'result', 'refused', 'reason', p.problem, 'agent_status', 'in_progress'))
    into v_refused
    from problems p
    join public.todolist t on t.id = (p.value ->> 'todolist_id')::uuid and t.agent_status = 'in_progress'
      and t.worker_id = p_worker_id and t.attempt = (p.value ->> 'attempt')::integer and t.id <> all (v_busy)
    where p.problem is not null;
  end if;

  if v_refused is not null or cardinality(v_busy) > 0 then
    select coalesce(jsonb_agg(jsonb_build_object('todolist_id', t.id, 'attempt', r.value -> 'attempt', 'result', 'busy',
      'reason', 'somebody else has locked it', 'agent_status', t.agent_status)), '[]')
    into v_later
    from jsonb_array_elements(p_results) r (value)
    join public.todolist t on t.id = (r.value ->> 'todolist_id')::uuid
    where t.id = any (v_busy);
    v_later := v_later || coalesce((
      select jsonb_agg(reactive_worker_private.refuse_end(r)) from jsonb_array_elements(v_refused) r), '[]');
    select coalesce(jsonb_agg(r.value order by r.n), '[]') into v_now
    from jsonb_array_elements(p_results) with ordinality r (value, n)
    where r.value ->> 'todolist_id' <> all (array(select l ->> 'todolist_id' from jsonb_array_elements(v_later) l));
  end if;
  v_now := reactive_worker_private.end_each(p_worker_id, v_now);
  if v_later <> '[]' then
    select jsonb_agg(d.value order by r.n) into v_now
    from jsonb_array_elements(p_results) with ordinality r (value, n)
    join jsonb_array_elements(v_now || v_later) d (value)
      on (d.value ->> 'todolist_id')::uuid = (r.value ->> 'todolist_id')::uuid;
  end if;
  return jsonb_build_object('results', v_now);
end
$$;

-- [{"id", "attempt"}]: handed back unharmed. With "failure": {"type", "message"} it counts one: for a run that could not
-- begin in this worker, or whose end it cannot write.
create function public.release_todos(p_worker_id uuid, p_items jsonb) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  v_busy uuid[];
  v_held jsonb;
  v_ids uuid[];
  v_run record;
  v_refused jsonb;
  v_others jsonb;
begin
  perform reactive_worker_private.check_runs('p_items', p_items);
  v_busy := reactive_worker_private.lock_todos(
    array(select distinct r.id from jsonb_to_recordset(p_items) as r (id uuid)));
  select coalesce(jsonb_agg(distinct jsonb_build_object('id', r.id, 'attempt', r.attempt,
    'failure', case when jsonb_typeof(r.failure) = 'object' then r.failure end)), '[]')
  into v_held
  from jsonb_to_recordset(p_items) as r (id uuid, attempt integer, failure jsonb)
  join public.todolist t on t.id = r.id and t.agent_status = 'in_progress' and t.worker_id = p_worker_id
    and t.attempt = r.attempt and t.id <> all (v_busy);
  -- What the failed ones could not even be told is put back by the others' way.
  v_ids := array(select r.id from jsonb_to_recordset(v_held) as r (id uuid, failure jsonb) where r.failure is null);
  for v_run in
    select r.id, r.failure from jsonb_to_recordset(v_held) as r (id uuid, failure jsonb) where r.failure is not null
  loop
    if reactive_worker_private.count_failure(v_run.id, jsonb_build_object(
      'type', left(coalesce(v_run.failure ->> 'type', 'Refused'), 200),
      'message', left(coalesce(v_run.failure ->> 'message', 'refused'), 10000))) is null then
      v_ids := v_ids || v_run.id;
    end if;
  end loop;
  v_refused := reactive_worker_private.put_back_each(v_ids, 'released');

  select jsonb_build_object(
    'lost', coalesce(jsonb_agg(distinct jsonb_build_object('id', r.id, 'attempt', r.attempt))
      filter (where coalesce(t.id <> all (v_busy), true)), '[]'),
    'busy', coalesce(jsonb_agg(distinct jsonb_build_object('id', r.id, 'attempt', r.attempt))
      filter (where t.id = any (v_busy)), '[]'))
  into v_others
  from jsonb_to_recordset(p_items) as r (id uuid, attempt integer)
  left join public.todolist t on t.id = r.id
  where not exists (
    select from jsonb_to_recordset(v_held) as h (id uuid, attempt integer) where h.id = r.id and h.attempt = r.attempt);
  return v_others || jsonb_build_object('refused', v_refused, 'released', (
    select coalesce(jsonb_agg(jsonb_build_object('id', t.id, 'attempt', r.attempt, 'agent_status', t.agent_status)
      order by t.id), '[]')
    from jsonb_to_recordset(v_held) as r (id uuid, attempt integer) join public.todolist t on t.id = r.id
    where t.agent_status <> 'in_progress'));
end
$$;

-- Helpers of the functions that follow. They live in a schema of their own, which the API does not expose.

create schema reactive_worker_private;
comment on schema reactive_worker_private is
  'Inner parts of reactive-worker. Not exposed by the API: nothing here is meant to be called from outside.';

create function public.reactive_worker_schema_version() returns integer
language sql immutable
set search_path = ''
as $$ select 1 $$;
comment on function public.reactive_worker_schema_version() is
  'Version of tables and functions; a worker checks it when it starts.';

-- Rows come from anywhere: from Studio with half the columns filled in, and from API clients that send a list of
-- objects with different keys, which writes NULL over the defaults of the keys some of them lack. Both mean "the
-- default".
create function reactive_worker_private.todolist_fill_in() returns trigger
language plpgsql
set search_path = ''
as $$
declare
  v_now timestamptz := public.reactive_worker_now();
begin
  if tg_op = 'INSERT' then
    new.id := coalesce(new.id, gen_random_uuid());
    new.agent_status := coalesce(new.agent_status, 'pending');
    new.priority := coalesce(new.priority, 0);
    new.created_at := coalesce(new.created_at, v_now);
    new.updated_at := coalesce(new.updated_at, v_now);
    new.available_at := coalesce(new.available_at, v_now);
    new.attempt := coalesce(new.attempt, 0);
    new.failures := coalesce(new.failures, 0);
    new.max_failures := coalesce(new.max_failures, 3);
    new.task_state := coalesce(new.task_state, 'TASK_STATE_SUBMITTED');
    new.owner_id := coalesce(new.owner_id, auth.uid());
  else
    new.updated_at := v_now;
  end if;
  return new;
end
$$;

create trigger todolist_fill_in before insert or update on public.todolist
  for each row execute function reactive_worker_private.todolist_fill_in();

-- The small ones below are plpgsql, not sql: with a search_path of their own, sql functions are never inlined, and
-- then cost three times as much a call.

-- RFC 3339 in UTC with a 'Z', as A2A writes times.
create function reactive_worker_private.rfc3339(p_at timestamptz) returns text
language plpgsql stable
set search_path = ''
as $$
begin
  return to_char(p_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
end
$$;

-- An A2A StreamResponse that announces a state, as executors' own events are stored.
create function reactive_worker_private.status_update(
  p_id uuid, p_context_id text, p_state text, p_at timestamptz, p_text text default null
) returns jsonb
language plpgsql volatile
set search_path = ''
as $$
declare
  v_context_id text := coalesce(p_context_id, p_id::text);
  v_status jsonb := jsonb_build_object('state', p_state, 'timestamp', reactive_worker_private.rfc3339(p_at));
begin
  if p_text is not null then
    v_status := v_status || jsonb_build_object('message', jsonb_build_object(
      'messageId', gen_random_uuid(), 'role', 'ROLE_AGENT', 'taskId', p_id, 'contextId', v_context_id,
      'parts', jsonb_build_array(jsonb_build_object('text', p_text))));
  end if;
  return jsonb_build_object(
    'statusUpdate', jsonb_build_object('taskId', p_id, 'contextId', v_context_id, 'status', v_status));
end
$$;

create function reactive_worker_private.is_uuid(p_text text) returns boolean
language plpgsql immutable
set search_path = ''
as $$
begin
  return coalesce(p_text ~* '^[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}$', false);
end
$$;

-- A JSON whole number within [p_least, p_most]; false for anything else, 3.5, 3.0 and "3" included.
create function reactive_worker_private.is_whole(p_value jsonb, p_least numeric, p_most numeric) returns boolean
language plpgsql immutable
set search_path = ''
as $$
begin
  return coalesce(
    case when p_value::text ~ '^-?[0-9]{1,19}$' then p_value::numeric between p_least and p_most end, false);
end
$$;

-- Puts held tasks back: lost with their worker (one failure each), or handed back unharmed. A task that was asked to
-- stop is cancelled instead; one without budget left fails. The caller has locked the rows, seen that they are in
-- progress, and calls this in a later statement. Returns how many.
create function reactive_worker_private.put_back(p_ids uuid[], p_lost boolean) returns integer
language plpgsql
set search_path = ''
as $$
declare
  v_now timestamptz := public.reactive_worker_now();
  v_count integer;
begin
  with held as materialized (
    select t.id, t.context_id, t.worker_id, t.attempt, t.cancel_reason,
      t.cancel_requested_at is not null as stop,
      t.failures + p_lost::integer as failures,
      p_lost and t.failures + 1 >= t.max_failures as spent,
      -- The snapshot is younger than the lock, so it holds what the previous holder wrote.
      (select coalesce(max(e.seq), 0) from public.events e where e.todolist_id = t.id) as seq
    from public.todolist t
    where t.id = any (p_ids)
  ), logged as (
    insert into public.events
      (todolist_id, seq, event_type, event_data, message, context_id, task_id, created_at, attempt, worker_id)
    select h.id, h.seq + l.step, l.event_type, l.event_data, l.message, coalesce(h.context_id, h.id::text), h.id::text,
      v_now, h.attempt, h.worker_id
    from held h
    cross join lateral (
      select 1, 'task_cancelled', h.cancel_reason,
        reactive_worker_private.status_update(h.id, h.context_id, 'TASK_STATE_CANCELED', v_now, h.cancel_reason)
      where h.stop
      union all
      select 1, case when p_lost then 'task_lost' else 'task_released' end, case when p_lost then 'worker lost' end,
        jsonb_build_object('workerId', h.worker_id, 'attempt', h.attempt, 'failures', h.failures)
      where not h.stop
      union all
      select 2, 'task_failed', 'worker lost',
        reactive_worker_private.status_update(h.id, h.context_id, 'TASK_STATE_FAILED', v_now, 'worker lost')
      where h.spent and not h.stop
    ) l (step, event_type, message, event_data)
  )
  update public.todolist t
  set agent_status = case when h.stop then 'cancelled' when h.spent then 'failed' else 'pending' end,
    task_state = case
      when h.stop then 'TASK_STATE_CANCELED' when h.spent then 'TASK_STATE_FAILED' else t.task_state end,
    failures = case when h.stop then t.failures else h.failures end,
    worker_id = case when h.stop or h.spent then t.worker_id end,
    completed_at = case when h.stop or h.spent then v_now end,
    -- Back at once the first time, so that a restart costs nobody more than the lease; then 1, 2, 4 ... 60 s, so
    -- that a task that kills its workers does not take the fleet down in a second.
    available_at = case
      when h.stop or h.spent then t.available_at
      when p_lost and h.failures > 1 then v_now + make_interval(secs => least(60, 2 ^ least(h.failures - 2, 10)))
      else v_now end,
    error = case when h.spent and not h.stop
      then jsonb_build_object('type', 'WorkerLost', 'message', 'worker lost') else t.error end,
    agent_output = case when h.spent and not h.stop
      then '{"error": {"type": "WorkerLost", "message": "worker lost"}}'::jsonb else t.agent_output end
  from held h
  where t.id = h.id;
  get diagnostics v_count = row_count;
  return v_count;
end
$$;

-- Helpers of the functions that follow. They live in a schema of their own, which the API does not expose.

create schema reactive_worker_private;
comment on schema reactive_worker_private is
  'Inner parts of reactive-worker. Not exposed by the API: nothing here is meant to be called from outside.';

create function public.reactive_worker_schema_version() returns integer
language sql immutable
set search_path = ''
as $$ select 2 $$;
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
    new.id := coalesce(new.id, public.reactive_worker_uuid());
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
    -- Whoever sets an ended task back to pending wants it to run: as retry_todo does it, and also by hand. What was left
    -- of its end (a cancel that was asked for, a budget that is spent) would end it again at once.
    if new.agent_status = 'pending' and old.agent_status in ('completed', 'failed', 'cancelled') then
      new.failures := 0;
      new.error := null;
      new.agent_output := case when old.agent_status = 'completed' then new.agent_output end;
      new.task_state := 'TASK_STATE_SUBMITTED';
      new.completed_at := null;
      new.cancel_requested_at := null;
      new.cancel_reason := null;
      new.worker_id := null;
    end if;
  end if;
  return new;
end
$$;

create trigger todolist_fill_in before insert or update on public.todolist
  for each row execute function reactive_worker_private.todolist_fill_in();

-- A running task was set back to pending by hand: the worker that runs it shall hear at once that it has lost it. Our own
-- functions leave no worker in a pending row, so one that is there means: until this worker has said that it no longer
-- runs the task, it does not get it again (claim_todos), for it would run it twice; any other worker may have it.
create function reactive_worker_private.todolist_taken_back() returns trigger
language plpgsql security definer
set search_path = ''
as $$
begin
  update public.worker_mailbox m set signal_at = public.reactive_worker_now() where m.worker_id = new.worker_id;
  return null;
end
$$;

create trigger todolist_taken_back after update on public.todolist
  for each row when (old.agent_status = 'in_progress' and new.agent_status = 'pending' and new.worker_id is not null)
  execute function reactive_worker_private.todolist_taken_back();

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

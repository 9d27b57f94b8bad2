-- What clients may do to a task of theirs: cancel, retry, answer. And the monitor's figures.
--
-- Each comes twice. The public function runs as its caller: it looks the task up under the caller's own row level
-- security, so nobody learns anything about a task they cannot see. The private twin runs as the owner of the
-- tables, because users may write neither events nor status columns; it is reachable only from here, as the API
-- does not expose its schema.

create function reactive_worker_private.require_visible(p_id uuid) returns void
language plpgsql stable
set search_path = ''
as $$
begin
  if not exists (select from public.todolist t where t.id = p_id) then
    raise exception using errcode = 'PT404', message = format('task %s not found', coalesce(p_id::text, 'null'));
  end if;
end
$$;

-- The number of the next event of a task. Only for whoever holds the row's lock, in a statement after the one that
-- took it: then its snapshot holds what the previous holder wrote.
create function reactive_worker_private.next_seq(p_id uuid) returns bigint
language plpgsql
set search_path = ''
as $$
begin
  return (select coalesce(max(e.seq), 0) + 1 from public.events e where e.todolist_id = p_id);
end
$$;

-- Locks a task; everything below decides on what it finds then.
create function reactive_worker_private.lock_todo(p_id uuid) returns public.todolist
language plpgsql
set search_path = ''
as $$
declare
  v_todo public.todolist;
begin
  select t.* into v_todo from public.todolist t where t.id = p_id for update;
  if not found then
    raise exception using errcode = 'PT404', message = format('task %s not found', coalesce(p_id::text, 'null'));
  end if;
  return v_todo;
end
$$;

create function reactive_worker_private.cancel_todo(p_id uuid, p_reason text) returns jsonb
language plpgsql security definer
set search_path = ''
as $$
declare
  v_now timestamptz := public.reactive_worker_now();
  v_todo public.todolist := reactive_worker_private.lock_todo(p_id);
begin
  if v_todo.agent_status in ('completed', 'failed') then
    raise exception using errcode = 'PT409',
      message = format('task %s cannot be cancelled: it is %s', p_id, v_todo.agent_status);
  elsif v_todo.agent_status in ('pending', 'input_required') then
    update public.todolist t
    set agent_status = 'cancelled', task_state = 'TASK_STATE_CANCELED', completed_at = v_now, worker_id = null,
      cancel_requested_at = coalesce(t.cancel_requested_at, v_now), cancel_reason = coalesce(t.cancel_reason, p_reason)
    where t.id = p_id
    returning t.* into v_todo;
    insert into public.events
      (todolist_id, seq, event_type, event_data, message, context_id, task_id, created_at, attempt)
    values (p_id, reactive_worker_private.next_seq(p_id), 'task_cancelled',
      reactive_worker_private.status_update(
        p_id, v_todo.context_id, 'TASK_STATE_CANCELED', v_now, v_todo.cancel_reason),
      v_todo.cancel_reason, coalesce(v_todo.context_id, p_id::text), p_id::text, v_now, v_todo.attempt);
  elsif v_todo.agent_status = 'in_progress' and v_todo.cancel_requested_at is null then
    -- No event: only the holder numbers events while the task runs. It hears of this at once through its mailbox, or
    -- at the latest with its next heartbeat.
    update public.todolist t set cancel_requested_at = v_now, cancel_reason = p_reason
    where t.id = p_id
    returning t.* into v_todo;
    update public.worker_mailbox m set signal_at = v_now where m.worker_id = v_todo.worker_id;
  end if;
  return to_jsonb(v_todo);
end
$$;

create function reactive_worker_private.retry_todo(p_id uuid) returns jsonb
language plpgsql security definer
set search_path = ''
as $$
declare
  v_now timestamptz := public.reactive_worker_now();
  v_todo public.todolist := reactive_worker_private.lock_todo(p_id);
begin
  if v_todo.agent_status not in ('failed', 'cancelled') then
    raise exception using errcode = 'PT409',
      message = format('task %s cannot be retried: it is %s', p_id, v_todo.agent_status);
  end if;
  -- agent_output goes too: it repeats the error that no longer holds. The log keeps both.
  update public.todolist t
  set agent_status = 'pending', task_state = 'TASK_STATE_SUBMITTED', failures = 0, error = null, agent_output = null,
    completed_at = null, cancel_requested_at = null, cancel_reason = null, worker_id = null, available_at = v_now
  where t.id = p_id
  returning t.* into v_todo;
  insert into public.events (todolist_id, seq, event_type, event_data, context_id, task_id, created_at, attempt)
  values (p_id, reactive_worker_private.next_seq(p_id), 'task_retried', jsonb_build_object('attempt', v_todo.attempt),
    coalesce(v_todo.context_id, p_id::text), p_id::text, v_now, v_todo.attempt);
  return to_jsonb(v_todo);
end
$$;

create function reactive_worker_private.answer_todo(p_id uuid, p_message jsonb) returns jsonb
language plpgsql security definer
set search_path = ''
as $$
declare
  v_now timestamptz := public.reactive_worker_now();
  v_todo public.todolist := reactive_worker_private.lock_todo(p_id);
  v_text text;
begin
  if v_todo.agent_status <> 'input_required' then
    raise exception using errcode = 'PT409',
      message = format('task %s is not waiting for an answer: it is %s', p_id, v_todo.agent_status);
  end if;
  update public.todolist t
  set agent_status = 'pending', task_state = 'TASK_STATE_WORKING', failures = 0, available_at = v_now, worker_id = null
  where t.id = p_id
  returning t.* into v_todo;
  select string_agg(p.value ->> 'text', e'\n' order by p.n) into v_text
  from jsonb_array_elements(p_message -> 'parts') with ordinality p (value, n)
  where jsonb_typeof(p.value) = 'object' and jsonb_typeof(p.value -> 'text') = 'string';
  insert into public.events
    (todolist_id, seq, event_type, event_data, message, context_id, task_id, created_at, attempt)
  values (p_id, reactive_worker_private.next_seq(p_id), 'message_received',
    jsonb_build_object('message', p_message), v_text, coalesce(v_todo.context_id, p_id::text), p_id::text, v_now,
    v_todo.attempt);
  return to_jsonb(v_todo);
end
$$;

create function public.cancel_todo(p_id uuid, p_reason text default null) returns jsonb
language plpgsql
set search_path = ''
as $$
begin
  perform reactive_worker_private.require_visible(p_id);
  return reactive_worker_private.cancel_todo(p_id, p_reason);
end
$$;

create function public.retry_todo(p_id uuid) returns jsonb
language plpgsql
set search_path = ''
as $$
begin
  perform reactive_worker_private.require_visible(p_id);
  return reactive_worker_private.retry_todo(p_id);
end
$$;

create function public.answer_todo(p_id uuid, p_message jsonb) returns jsonb
language plpgsql
set search_path = ''
as $$
begin
  if jsonb_typeof(p_message) is distinct from 'object'
    or jsonb_typeof(p_message -> 'parts') is distinct from 'array'
    or jsonb_array_length(p_message -> 'parts') = 0 then
    raise exception using errcode = '22023',
      message = 'p_message must be an A2A Message: an object with a non-empty array "parts"';
  end if;
  perform reactive_worker_private.require_visible(p_id);
  return reactive_worker_private.answer_todo(p_id, p_message);
end
$$;

create function public.todo_stats(p_agent_type text default null) returns jsonb
language sql stable
set search_path = ''
as $$
  with counted as (
    select t.agent_type, t.agent_status, count(*) as n
    from public.todolist t
    where p_agent_type is null or t.agent_type = p_agent_type
    group by t.agent_type, t.agent_status
  ), typed as (
    select c.agent_type,
      sum(c.n) as total_tasks,
      coalesce(sum(c.n) filter (where c.agent_status = 'pending'), 0) as pending_tasks,
      coalesce(sum(c.n) filter (where c.agent_status = 'in_progress'), 0) as in_progress_tasks,
      coalesce(sum(c.n) filter (where c.agent_status = 'input_required'), 0) as input_required_tasks,
      coalesce(sum(c.n) filter (where c.agent_status = 'completed'), 0) as completed_tasks,
      coalesce(sum(c.n) filter (where c.agent_status = 'failed'), 0) as failed_tasks,
      coalesce(sum(c.n) filter (where c.agent_status = 'cancelled'), 0) as cancelled_tasks
    from counted c
    group by c.agent_type
  ), oldest as (
    -- How long the task that has waited longest could have been running: scheduled ones do not wait yet.
    select min(o.available_at) as available_at
    from (select c.agent_type from counted c where c.agent_status = 'pending') p
    cross join lateral (
      select t.available_at from public.todolist t
      where t.agent_status = 'pending' and t.agent_type = p.agent_type
      order by t.available_at limit 1
    ) o
    where o.available_at <= public.reactive_worker_now()
  )
  select jsonb_build_object(
    'total_tasks', coalesce(sum(y.total_tasks), 0),
    'pending_tasks', coalesce(sum(y.pending_tasks), 0),
    'in_progress_tasks', coalesce(sum(y.in_progress_tasks), 0),
    'input_required_tasks', coalesce(sum(y.input_required_tasks), 0),
    'completed_tasks', coalesce(sum(y.completed_tasks), 0),
    'failed_tasks', coalesce(sum(y.failed_tasks), 0),
    'cancelled_tasks', coalesce(sum(y.cancelled_tasks), 0),
    'oldest_pending_seconds', extract(epoch from public.reactive_worker_now() - (select o.available_at from oldest o)),
    'workers_alive', (select count(*) from public.workers w where w.lease_until > public.reactive_worker_now()),
    'by_agent_type', coalesce(jsonb_object_agg(y.agent_type, to_jsonb(y) - 'agent_type')
      filter (where y.agent_type is not null), '{}'))
  from typed y
$$;

-- What clients may do to a task of theirs: cancel, retry, answer.
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
declare
  v_problem text := reactive_worker_private.message_problem(p_message);
begin
  if v_problem is not null then
    raise exception using errcode = '22023', message = 'p_message ' || v_problem;
  end if;
  perform reactive_worker_private.require_visible(p_id);
  return reactive_worker_private.answer_todo(p_id, p_message);
end
$$;

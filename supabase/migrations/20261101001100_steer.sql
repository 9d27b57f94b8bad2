-- Words to a running agent.
--
-- A message is stored here in the transaction that wakes the worker, so it survives whatever happens to either side.
-- What became of it is said twice, in one transaction: by an event (steer_accepted, steer_applied, steer_refused),
-- which only the holder of the task may number, and by the column the trigger below sets from it. Log and table
-- cannot disagree, and a message that is applied or refused is never handed out again: whoever runs the task next
-- gets the others.

create table public.steering (
  -- Made by the sender: sending again after a lost answer stores nothing twice.
  id uuid primary key,
  todolist_id uuid not null references public.todolist (id) on delete cascade,
  -- In which order they were said.
  n bigint generated always as identity,
  message jsonb not null,
  created_at timestamptz not null default public.reactive_worker_now(),
  accepted_at timestamptz,
  applied_at timestamptz,
  refused_at timestamptz
);
comment on table public.steering is 'Messages to running agents, and what became of each. Written by functions only.';

-- Whoever writes, and by whatever way: what no run can read must not lie in the way of what it can.
create function reactive_worker_private.steering_limits() returns trigger
language plpgsql security definer
set search_path = ''
as $$
declare
  v_problem text := reactive_worker_private.message_problem(new.message);
begin
  if v_problem is not null then
    raise exception using errcode = '22023', message = 'message ' || v_problem, table = 'steering', column = 'message',
      constraint = 'steering_limits';
  end if;
  return new;
end
$$;

create trigger steering_limits before insert or update of message on public.steering
  for each row execute function reactive_worker_private.steering_limits();

create index steering_todolist_idx on public.steering (todolist_id, n);

-- A person steers; thousands of unread messages are a loop that went wrong.
create function reactive_worker_private.most_open_steering() returns integer
language plpgsql immutable
set search_path = ''
as $$ begin return 100; end $$;

create function reactive_worker_private.steer_todo(p_id uuid, p_message jsonb) returns jsonb
language plpgsql security definer
set search_path = ''
as $$
declare
  v_now timestamptz := public.reactive_worker_now();
  v_todo public.todolist := reactive_worker_private.lock_todo(p_id);
  v_message_id uuid := (p_message ->> 'messageId')::uuid;
begin
  if not exists (select from public.steering s where s.id = v_message_id and s.todolist_id = p_id) then
    if v_todo.agent_status <> 'in_progress' then
      raise exception using errcode = 'PT409',
        message = format('task %s cannot be steered: it is %s', p_id, v_todo.agent_status);
    elsif v_todo.cancel_requested_at is not null then
      raise exception using errcode = 'PT409',
        message = format('task %s cannot be steered: it is being cancelled', p_id);
    elsif (select count(*) from public.steering s
           where s.todolist_id = p_id and s.applied_at is null and s.refused_at is null)
        >= reactive_worker_private.most_open_steering() then
      raise exception using errcode = 'PT409',
        message = format('task %s cannot be steered: %s messages to it are still unread',
          p_id, reactive_worker_private.most_open_steering());
    end if;
    insert into public.steering (id, todolist_id, message, created_at) values (v_message_id, p_id, p_message, v_now);
    update public.worker_mailbox m set signal_at = v_now where m.worker_id = v_todo.worker_id;
  end if;
  return jsonb_build_object(
    'message_id', v_message_id, 'todolist_id', p_id,
    -- What becomes of the message is said after this event.
    'seq', reactive_worker_private.next_seq(p_id) - 1);
end
$$;

create function public.steer_todo(p_id uuid, p_message jsonb) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  v_problem text := coalesce(reactive_worker_private.message_problem(p_message),
    case when not reactive_worker_private.is_uuid(p_message ->> 'messageId') then 'must have a uuid as messageId' end);
begin
  if v_problem is not null then
    raise exception using errcode = '22023', message = 'p_message ' || v_problem;
  end if;
  perform reactive_worker_private.require_visible(p_id);
  return reactive_worker_private.steer_todo(p_id, p_message);
end
$$;

-- For heartbeats: which of these runs have messages that wait to be applied. By index, and mostly finding nothing.
create function reactive_worker_private.steered(p_runs jsonb) returns jsonb
language plpgsql stable
set search_path = ''
as $$
begin
  return (
    select coalesce(jsonb_agg(distinct jsonb_build_object('id', r.id, 'attempt', r.attempt)), '[]')
    from jsonb_to_recordset(p_runs) as r (id uuid, attempt integer)
    join public.steering s on s.todolist_id = r.id
    where s.applied_at is null and s.refused_at is null);
end
$$;

-- The messages of a worker's own runs that wait to be applied: the first eight megabytes of them, one at least. Reading
-- changes nothing: an answer that got lost is asked for again.
create function public.read_steering(p_worker_id uuid, p_runs jsonb) returns jsonb
language plpgsql stable security definer
set search_path = ''
as $$
begin
  perform reactive_worker_private.check_runs('p_runs', p_runs);
  return (
    select jsonb_build_object('messages', coalesce(jsonb_agg(jsonb_build_object(
      'id', m.id, 'todolist_id', m.todolist_id, 'attempt', m.attempt, 'message', m.message,
      'accepted', m.accepted) order by m.n), '[]'))
    from (
      select s.id, s.todolist_id, t.attempt, s.message, s.accepted_at is not null as accepted, s.n,
        sum(octet_length(s.message::text)) over (order by s.n) - octet_length(s.message::text) as before
      from jsonb_to_recordset(p_runs) as r (id uuid, attempt integer)
      join public.todolist t on t.id = r.id and t.attempt = r.attempt
        and t.agent_status = 'in_progress' and t.worker_id = p_worker_id
      join public.steering s on s.todolist_id = t.id
      where s.applied_at is null and s.refused_at is null
    ) m
    where m.before < 8388608);
end
$$;

create function reactive_worker_private.note_steering() returns trigger
language plpgsql
set search_path = ''
as $$
declare
  v_id text := new.event_data -> 'steer' ->> 'messageId';
begin
  if reactive_worker_private.is_uuid(v_id) then
    update public.steering s
    set accepted_at = case when new.event_type = 'steer_refused' then s.accepted_at
        else coalesce(s.accepted_at, new.created_at) end,
      applied_at = case when new.event_type = 'steer_applied' then new.created_at else s.applied_at end,
      refused_at = case when new.event_type = 'steer_refused' then new.created_at else s.refused_at end
    where s.id = v_id::uuid and s.todolist_id = new.todolist_id;
  end if;
  return null;
end
$$;

create trigger events_note_steering after insert on public.events
  for each row when (new.event_type in ('steer_accepted', 'steer_applied', 'steer_refused'))
  execute function reactive_worker_private.note_steering();

alter table public.steering enable row level security;
revoke all on table public.steering from public, anon, authenticated, service_role, reactive_worker;
grant all on table public.steering to service_role;
grant select on table public.steering to authenticated;
create policy "who sees a task sees what was said to it" on public.steering
  for select to authenticated using (exists (select from public.todolist t where t.id = steering.todolist_id));

revoke all on function
  public.steer_todo(uuid, jsonb),
  public.read_steering(uuid, jsonb),
  reactive_worker_private.most_open_steering(),
  reactive_worker_private.steer_todo(uuid, jsonb),
  reactive_worker_private.steered(jsonb),
  reactive_worker_private.note_steering(),
  reactive_worker_private.steering_limits()
  from public, anon, authenticated, service_role, reactive_worker;
grant execute on function public.steer_todo(uuid, jsonb) to authenticated, service_role;
-- SECURITY DEFINER as the worker's other functions are, and for the same reason.
grant execute on function public.read_steering(uuid, jsonb) to service_role, reactive_worker;
-- Called as the user, who has passed require_visible.
grant execute on function reactive_worker_private.steer_todo(uuid, jsonb) to authenticated, service_role;

-- The fast way of push: hints by Realtime Broadcast.
--
-- Whatever makes tasks runnable (an insert; an update that leaves them pending: retried, answered, put back, released,
-- changed by hand) sends one message for each statement and agent type to a private topic of that agent type, within
-- the same transaction: ids, priority and times, never a prompt. A touched mailbox sends one to its worker's topic,
-- so that cancel, pause and drain, and the probe that proves push, go the same way as the push they belong to.
--
-- A message is a hint. Where `realtime.send` is missing nothing is sent and workers hear postgres_changes; whatever
-- goes wrong here costs a message, never the statement that caused it; and behind both there is the sweep.
--
-- Topics, as workers compute them too:
--   reactive_worker:todolist:<agent type>            when it consists of A-Z a-z 0-9 _ . - only
--   reactive_worker:todolist_sha256:<hex of sha256>  otherwise: a topic may have 255 bytes, a type 100 characters of four
--   reactive_worker:mailbox:<worker id>

create function reactive_worker_private.push_topic(p_agent_type text) returns text
language plpgsql immutable
set search_path = ''
as $$
begin
  return case
    when p_agent_type ~ '^[A-Za-z0-9_.-]+$' then 'reactive_worker:todolist:' || p_agent_type
    else 'reactive_worker:todolist_sha256:' || encode(sha256(convert_to(p_agent_type, 'UTF8')), 'hex') end;
end
$$;

-- SECURITY DEFINER: whoever may insert a task shall wake a worker, but nobody shall need rights on realtime.messages for
-- it, where a right to send would be a right to send anything.
-- lock_timeout: a lock on realtime.messages (its partitions are made and dropped while it is in use) costs the message,
-- not the patience of whoever inserts.
-- realtime.topic: realtime.send leaves its topic in this setting for the rest of the transaction, where the caller's own
-- policies might read it. It is put back.
create function reactive_worker_private.todolist_broadcast() returns trigger
language plpgsql security definer
set search_path = ''
set lock_timeout = '100ms'
as $$
declare
  v_topic text := current_setting('realtime.topic', true);
  v_hint record;
begin
  -- Claims and ends, that is most updates, leave nothing pending.
  if not exists (select from changed c where c.agent_status = 'pending') then
    return null;
  end if;
  if pg_catalog.to_regprocedure('realtime.send(jsonb,text,text,boolean)') is null then
    return null;
  end if;
  -- The best hundred of each agent type are named (some 20 kB), of the others only the number: whoever hears of more
  -- than is named sweeps at once. At most a hundred messages, whatever a statement does.
  for v_hint in
    select r.agent_type, count(*) as total,
      jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
        'id', r.id, 'priority', r.priority, 'attempt', r.attempt, 'available_at', r.available_at,
        'created_at', r.created_at, 'owner_id', r.owner_id, 'context_id', r.context_id)) order by r.n)
        filter (where r.n <= 100) as todos
    from (
      select c.agent_type, c.id, c.priority, c.attempt, c.available_at, c.created_at, c.owner_id, c.context_id,
        row_number() over (partition by c.agent_type order by c.priority desc, c.available_at, c.id) as n
      from changed c where c.agent_status = 'pending'
    ) r
    group by r.agent_type
    limit 100
  loop
    perform realtime.send(
      jsonb_build_object('agent_type', v_hint.agent_type, 'todos', v_hint.todos,
        'more', v_hint.total - jsonb_array_length(v_hint.todos), 'at', public.reactive_worker_now()),
      'todos', reactive_worker_private.push_topic(v_hint.agent_type), true);
  end loop;
  perform set_config('realtime.topic', coalesce(v_topic, ''), true);
  return null;
exception when others then
  raise warning 'reactive-worker: no hint was sent, a sweep will find the tasks: %', sqlerrm;
  return null;
end
$$;

-- Mailboxes are touched one at a time: one message for each row. The reasons for the settings are those above.
create function reactive_worker_private.mailbox_broadcast() returns trigger
language plpgsql security definer
set search_path = ''
set lock_timeout = '100ms'
as $$
declare
  v_topic text := current_setting('realtime.topic', true);
begin
  if pg_catalog.to_regprocedure('realtime.send(jsonb,text,text,boolean)') is not null then
    perform realtime.send(to_jsonb(new), 'mailbox', 'reactive_worker:mailbox:' || new.worker_id, true);
    perform set_config('realtime.topic', coalesce(v_topic, ''), true);
  end if;
  return null;
exception when others then
  raise warning 'reactive-worker: worker % was not told, its next heartbeat will: %', new.worker_id, sqlerrm;
  return null;
end
$$;

-- Two triggers, because one with a transition table has one event. No list of columns and no WHEN is allowed for them.
create trigger todolist_broadcast_insert after insert on public.todolist
  referencing new table as changed
  for each statement execute function reactive_worker_private.todolist_broadcast();
create trigger todolist_broadcast_update after update on public.todolist
  referencing new table as changed
  for each statement execute function reactive_worker_private.todolist_broadcast();
create trigger worker_mailbox_broadcast after update on public.worker_mailbox
  for each row when (new.* is distinct from old.*)
  execute function reactive_worker_private.mailbox_broadcast();

-- Whether hints are sent at all. Whether this worker may hear them, only a join can tell. Reads the catalog, which
-- everybody may: a role without rights on the schema `realtime` gets an answer, too.
create function public.push_ways() returns jsonb
language plpgsql stable
set search_path = ''
as $$
declare
  v_reason text;
begin
  if not exists (
    select from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    where n.nspname = 'realtime' and p.proname = 'send'
      and pg_catalog.oidvectortypes(p.proargtypes) = 'jsonb, text, text, boolean'
  ) then
    v_reason := 'this database has no function realtime.send';
  else
    select format('trigger %s is missing or disabled', w.name) into v_reason
    from (values ('public.todolist', 'todolist_broadcast_insert'), ('public.todolist', 'todolist_broadcast_update'),
      ('public.worker_mailbox', 'worker_mailbox_broadcast')) w (relation, name)
    where not exists (
      select from pg_catalog.pg_trigger t
      where t.tgrelid = w.relation::pg_catalog.regclass and t.tgname = w.name and t.tgenabled in ('O', 'A'))
    limit 1;
  end if;
  return jsonb_build_object('broadcast', v_reason is null, 'reason', v_reason);
end
$$;
comment on function public.push_ways() is 'Whether hints are sent by Realtime Broadcast, and if not, why.';

revoke all on function
  reactive_worker_private.push_topic(text),
  reactive_worker_private.todolist_broadcast(),
  reactive_worker_private.mailbox_broadcast()
  from public, anon, authenticated;
grant execute on function reactive_worker_private.push_topic(text) to service_role;
revoke all on function public.push_ways() from public, anon, authenticated, service_role;
grant execute on function public.push_ways() to service_role, reactive_worker;

-- Who hears: service_role, which no policy binds, and the role of workers. Everybody else is refused by default, for
-- nobody else has a policy for these topics; and nobody at all may send to them from outside.
-- The tables of Realtime are not ours, and not every way to apply migrations may touch them. Where it may not, workers
-- with that role are refused, and hear postgres_changes instead.
do $$
begin
  if to_regclass('realtime.messages') is not null and not exists (
    select from pg_catalog.pg_policy
    where polrelid = to_regclass('realtime.messages') and polname = 'workers hear their hints'
  ) then
    create policy "workers hear their hints" on realtime.messages
      for select to reactive_worker
      using (realtime.messages.extension = 'broadcast' and (select realtime.topic()) like 'reactive\_worker:%');
  end if;
exception when insufficient_privilege then
  raise warning using
    message = format('workers with the role reactive_worker will hear no broadcasts, but changes: %s', sqlerrm),
    hint = 'Run the last block of the migration broadcast_push in the SQL editor of the dashboard.';
end
$$;

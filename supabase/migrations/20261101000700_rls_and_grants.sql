-- Who may do what. Deny by default: row level security is on everywhere, and nothing is granted that is not named
-- here.
--
-- Older hosted projects grant everything on new objects to the API roles, newer ones nothing, not even to
-- service_role. So everything is taken away first, then given by name.
--
--   anon             nothing, but to ask for the schema version
--   authenticated    its own tasks and their events, through a few columns and four functions
--   reactive_worker  the functions of a worker; sees what is waiting or running, by the columns a sweep returns
--   service_role     everything

-- The worker's own role, reached by a token that says "role": "reactive_worker" (`reactive-worker token mint`). A
-- leaked one opens no other table of the project. Roles belong to the whole server: another database of it, or a
-- reset of this one, may have made it already.
do $$
begin
  if not exists (select from pg_catalog.pg_roles where rolname = 'reactive_worker') then
    create role reactive_worker nologin;
  end if;
exception when duplicate_object or unique_violation then
  null;  -- made by somebody else in the same moment
end
$$;

do $$
begin
  -- The API server logs in as this one and switches to the role a token names.
  if exists (select from pg_catalog.pg_roles where rolname = 'authenticator')
    and not pg_catalog.pg_has_role('authenticator', 'reactive_worker', 'member') then
    grant reactive_worker to authenticator;
  end if;
  -- Whoever owns the project may try its policies with `set role reactive_worker`.
  if not pg_catalog.pg_has_role(current_user, 'reactive_worker', 'member') then
    execute format('grant reactive_worker to %I', current_user);
  end if;
  -- A project's owner can neither grant usage of the schema realtime nor its messages, which a private channel is
  -- judged by; the role anon has both. What else it has is anybody's anyway who holds the publishable key, and no
  -- request gets past the API gateway without one.
  if not pg_catalog.pg_has_role('reactive_worker', 'anon', 'member') then
    begin
      grant anon to reactive_worker;
    exception when insufficient_privilege then
      raise warning using
        message = format('workers with the role reactive_worker will hear no broadcasts, but changes: %s', sqlerrm),
        hint = 'As a role that administers anon: grant anon to reactive_worker';
    end;
  end if;
end
$$;

alter table public.todolist enable row level security;
alter table public.events enable row level security;
alter table public.workers enable row level security;
alter table public.worker_mailbox enable row level security;

revoke all on table public.todolist, public.events, public.workers, public.worker_mailbox
  from public, anon, authenticated, service_role;

-- Workers and backends: everything (service_role bypasses row level security, which is no privilege by itself).
grant all on table public.todolist, public.events, public.workers, public.worker_mailbox to service_role;

-- Signed-in users: read their own tasks and those tasks' events, insert the columns a client may choose.
grant select on table public.todolist, public.events to authenticated;
grant insert (agent_type, prompt, input_data, priority, available_at, max_failures, timeout_seconds, context_id,
  idempotency_key, owner_id) on table public.todolist to authenticated;

-- (select auth.uid()) is evaluated once a statement, not once a row.
create policy "owners read their tasks" on public.todolist
  for select to authenticated using ((select auth.uid()) = owner_id);
create policy "owners insert their tasks" on public.todolist
  for insert to authenticated with check ((select auth.uid()) = owner_id);
-- Row level security applies within a policy too: whoever sees a task sees its log, so that a policy of your own on
-- todolist (a team's tasks, say) needs no second one here.
create policy "who sees a task sees its events" on public.events
  for select to authenticated using (exists (select from public.todolist t where t.id = events.todolist_id));

-- Workers read the log of what is running, to go on with a conversation, and Realtime asks with their rights what it
-- may tell them. They write through functions only. Of a task they see what a sweep returns, while it waits or runs;
-- prompt and input come with the claim, and what has ended is none of their business.
grant select (id, agent_type, agent_status, priority, attempt, available_at, created_at, owner_id, context_id)
  on table public.todolist to reactive_worker;
grant select on table public.events, public.worker_mailbox to reactive_worker;

create policy "workers see what is open" on public.todolist
  for select to reactive_worker using (agent_status in ('pending', 'in_progress'));
create policy "workers read the log of what runs" on public.events
  for select to reactive_worker using (
    exists (select from public.todolist t where t.id = events.todolist_id and t.agent_status = 'in_progress'));
create policy "workers hear their mailboxes" on public.worker_mailbox
  for select to reactive_worker using (true);

revoke all on function
  public.reactive_worker_now(),
  public.reactive_worker_uuid(),
  public.reactive_worker_schema_version(),
  public.register_worker(uuid, text, text[], integer, double precision, jsonb),
  public.heartbeat_worker(uuid, double precision, jsonb, jsonb),
  public.unregister_worker(uuid),
  public.touch_probe(uuid),
  public.set_worker_state(uuid, text),
  public.list_workers(),
  public.submit_todos(jsonb),
  public.reclaim_todos(uuid),
  public.sweep_todos(uuid, text[], integer, text, uuid[]),
  public.claim_todos(uuid, uuid[], integer, bigint),
  public.append_events(uuid, jsonb),
  public.finish_todos(uuid, jsonb),
  public.release_todos(uuid, jsonb),
  public.cancel_todo(uuid, text),
  public.retry_todo(uuid),
  public.answer_todo(uuid, jsonb)
  from public, anon, authenticated, service_role;

grant execute on function
  public.register_worker(uuid, text, text[], integer, double precision, jsonb),
  public.heartbeat_worker(uuid, double precision, jsonb, jsonb),
  public.unregister_worker(uuid),
  public.touch_probe(uuid),
  public.reclaim_todos(uuid),
  public.sweep_todos(uuid, text[], integer, text, uuid[]),
  public.claim_todos(uuid, uuid[], integer, bigint),
  public.append_events(uuid, jsonb),
  public.finish_todos(uuid, jsonb),
  public.release_todos(uuid, jsonb)
  to service_role, reactive_worker;

-- SECURITY DEFINER, because reactive_worker shall change rows through these functions and in no other way: with
-- rights of its own on the tables, a leaked token could end, rewrite or delete any task past every fence. None of
-- them reads or writes anything by a name it is given. As the tables' owner they pass row level security, as
-- service_role does; BYPASSRLS for the worker's role would leave those rights open, and on PostgreSQL 15 an owner who
-- is no superuser cannot give it.
alter function public.register_worker(uuid, text, text[], integer, double precision, jsonb) security definer;
alter function public.heartbeat_worker(uuid, double precision, jsonb, jsonb) security definer;
alter function public.unregister_worker(uuid) security definer;
alter function public.touch_probe(uuid) security definer;
alter function public.reclaim_todos(uuid) security definer;
alter function public.sweep_todos(uuid, text[], integer, text, uuid[]) security definer;
alter function public.claim_todos(uuid, uuid[], integer, bigint) security definer;
alter function public.append_events(uuid, jsonb) security definer;
alter function public.finish_todos(uuid, jsonb) security definer;
alter function public.release_todos(uuid, jsonb) security definer;

-- For people who run workers.
grant execute on function
  public.set_worker_state(uuid, text),
  public.list_workers()
  to service_role;

grant execute on function
  public.submit_todos(jsonb),
  public.cancel_todo(uuid, text),
  public.retry_todo(uuid),
  public.answer_todo(uuid, jsonb),
  -- Column defaults read the clock, and make ids, with the rights of whoever inserts.
  public.reactive_worker_now(),
  public.reactive_worker_uuid()
  to authenticated, service_role;

-- Anybody may ask whether the migrations are applied.
grant execute on function public.reactive_worker_schema_version()
  to anon, authenticated, service_role, reactive_worker;

-- Nobody but the owner: the functions of workers, being SECURITY DEFINER, call these as their owner. EXECUTE is given by
-- name, for what the public functions call as the user.
revoke all on schema reactive_worker_private from public, anon, authenticated, service_role, reactive_worker;
revoke all on all tables in schema reactive_worker_private
  from public, anon, authenticated, service_role, reactive_worker;
revoke all on all functions in schema reactive_worker_private
  from public, anon, authenticated, service_role, reactive_worker;
grant usage on schema reactive_worker_private to authenticated, service_role;
grant execute on function
  reactive_worker_private.submit_problem(jsonb, boolean),
  reactive_worker_private.todo_problem(text, text, jsonb, integer, timestamp with time zone, integer, integer, text, text, boolean),
  reactive_worker_private.message_problem(jsonb),
  reactive_worker_private.is_uuid(text),
  reactive_worker_private.is_whole(jsonb, numeric, numeric),
  reactive_worker_private.require_visible(uuid),
  -- Whoever gets to these has passed require_visible.
  reactive_worker_private.cancel_todo(uuid, text),
  reactive_worker_private.retry_todo(uuid),
  reactive_worker_private.answer_todo(uuid, jsonb)
  to authenticated, service_role;
grant execute on function reactive_worker_private.insert_own_todos(jsonb, timestamp with time zone, uuid)
  to authenticated;
grant execute on function reactive_worker_private.insert_todos(jsonb, timestamp with time zone, uuid)
  to service_role;

-- For demos only: everybody who has the publishable key may submit tasks, and see and steer those that nobody owns.
--
-- Not a migration: it is never applied by itself. To apply it, run it as the owner of the project, in the SQL editor of
-- the dashboard or with psql; it may be run again. anon_demo_undo.sql takes it all back. Whoever puts it on the open
-- internet pays for everybody's tasks: see docs/security.md.

begin;

-- An earlier version of this file let anon choose ids too.
revoke insert (id) on table public.todolist from anon;
grant insert (agent_type, prompt, input_data, priority, available_at, max_failures, timeout_seconds, context_id,
  idempotency_key) on table public.todolist to anon;
grant select on table public.todolist, public.events to anon;

drop policy if exists "demo: anybody sees what nobody owns" on public.todolist;
create policy "demo: anybody sees what nobody owns" on public.todolist
  for select to anon using (owner_id is null);
drop policy if exists "demo: anybody submits" on public.todolist;
create policy "demo: anybody submits" on public.todolist
  for insert to anon with check (owner_id is null);
drop policy if exists "demo: who sees a task sees its events" on public.events;
create policy "demo: who sees a task sees its events" on public.events
  for select to anon using (exists (select from public.todolist t where t.id = events.todolist_id));

grant execute on function
  public.submit_todos(jsonb),
  public.cancel_todo(uuid, text),
  public.retry_todo(uuid),
  public.answer_todo(uuid, jsonb),
  public.steer_todo(uuid, jsonb),
  public.reactive_worker_now(),
  public.reactive_worker_uuid()
  to anon;
grant usage on schema reactive_worker_private to anon;
grant execute on function
  reactive_worker_private.submit_problem(jsonb, boolean),
  reactive_worker_private.insert_own_todos(jsonb, timestamp with time zone, uuid),
  reactive_worker_private.todo_problem(text, text, jsonb, integer, timestamp with time zone, integer, integer, text, text, boolean),
  reactive_worker_private.message_problem(jsonb),
  reactive_worker_private.is_uuid(text),
  reactive_worker_private.is_whole(jsonb, numeric, numeric),
  reactive_worker_private.require_visible(uuid),
  reactive_worker_private.cancel_todo(uuid, text),
  reactive_worker_private.retry_todo(uuid),
  reactive_worker_private.answer_todo(uuid, jsonb),
  reactive_worker_private.steer_todo(uuid, jsonb)
  to anon;

commit;

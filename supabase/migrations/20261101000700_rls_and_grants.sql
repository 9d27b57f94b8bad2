-- Who may do what. Deny by default: row level security is on everywhere, and nothing is granted that is not named
-- here.
--
-- Older hosted projects grant everything on new objects to the API roles, newer ones nothing, not even to
-- service_role. So everything is taken away first, then given by name.

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
grant insert (id, agent_type, prompt, input_data, priority, available_at, max_failures, timeout_seconds, context_id,
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

revoke all on function
  public.reactive_worker_now(),
  public.reactive_worker_schema_version(),
  public.register_worker(uuid, text, text[], integer, double precision, jsonb),
  public.heartbeat_worker(uuid, double precision, jsonb, jsonb),
  public.unregister_worker(uuid),
  public.touch_probe(uuid),
  public.set_worker_state(uuid, text),
  public.list_workers(),
  public.submit_todos(jsonb),
  public.sweep_todos(uuid, text[], integer),
  public.claim_todos(uuid, uuid[], integer),
  public.append_events(uuid, jsonb),
  public.finish_todos(uuid, jsonb),
  public.release_todos(uuid, jsonb),
  public.cancel_todo(uuid, text),
  public.retry_todo(uuid),
  public.answer_todo(uuid, jsonb),
  public.todo_stats(text)
  from public, anon, authenticated, service_role;

grant execute on function
  public.register_worker(uuid, text, text[], integer, double precision, jsonb),
  public.heartbeat_worker(uuid, double precision, jsonb, jsonb),
  public.unregister_worker(uuid),
  public.touch_probe(uuid),
  public.set_worker_state(uuid, text),
  public.list_workers(),
  public.sweep_todos(uuid, text[], integer),
  public.claim_todos(uuid, uuid[], integer),
  public.append_events(uuid, jsonb),
  public.finish_todos(uuid, jsonb),
  public.release_todos(uuid, jsonb),
  public.todo_stats(text)
  to service_role;

grant execute on function
  public.submit_todos(jsonb),
  public.cancel_todo(uuid, text),
  public.retry_todo(uuid),
  public.answer_todo(uuid, jsonb),
  -- Column defaults read the clock with the rights of whoever inserts.
  public.reactive_worker_now()
  to authenticated, service_role;

-- Anybody may ask whether the migrations are applied.
grant execute on function public.reactive_worker_schema_version() to anon, authenticated, service_role;

revoke all on schema reactive_worker_private from public, anon, authenticated, service_role;
revoke all on all functions in schema reactive_worker_private from public, anon, authenticated, service_role;
grant usage on schema reactive_worker_private to authenticated, service_role;
grant execute on all functions in schema reactive_worker_private to service_role;
-- Only what the public functions call as the user. Whoever gets here has passed require_visible.
grant execute on function
  reactive_worker_private.submit_problem(jsonb),
  reactive_worker_private.is_uuid(text),
  reactive_worker_private.is_whole(jsonb, numeric, numeric),
  reactive_worker_private.require_visible(uuid),
  reactive_worker_private.cancel_todo(uuid, text),
  reactive_worker_private.retry_todo(uuid),
  reactive_worker_private.answer_todo(uuid, jsonb)
  to authenticated;

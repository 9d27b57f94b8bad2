-- Takes back what anon_demo.sql gave: anon may do nothing again. May be run again.

begin;

drop policy if exists "demo: anybody sees what nobody owns" on public.todolist;
drop policy if exists "demo: anybody submits" on public.todolist;
drop policy if exists "demo: who sees a task sees its events" on public.events;
revoke all on table public.todolist, public.events from anon;
revoke execute on function
  public.submit_todos(jsonb),
  public.cancel_todo(uuid, text),
  public.retry_todo(uuid),
  public.answer_todo(uuid, jsonb),
  public.steer_todo(uuid, jsonb),
  public.reactive_worker_now(),
  public.reactive_worker_uuid()
  from anon;
revoke all on all functions in schema reactive_worker_private from anon;
revoke all on schema reactive_worker_private from anon;

commit;

-- Tasks from a table of your own: an INSERT into it starts one, and the rows that are there get theirs, once.
--
-- Not a migration: copy it into one of your own (`supabase migration new start_tasks`) and change what is named here:
-- the table `tickets`, its key `id` and text `body`, the agent type `triage`. It may be run again.

-- By statement, so that a thousand rows at once are one call. SECURITY DEFINER: who may write tickets need not be
-- allowed to submit tasks. In the writing transaction: no row without its task, no task of a row that was rolled back.
create or replace function public.tickets_start_tasks() returns trigger
language plpgsql security definer
set search_path = ''
as $$
begin
  perform public.submit_todos(jsonb_agg(jsonb_build_object(
    'agent_type', 'triage',
    'prompt', n.body,
    'input_data', jsonb_build_object('ticket_id', n.id),
    -- One task for each row, however often this is run.
    'idempotency_key', 'ticket-' || n.id) order by n.id))
  from new_rows n
  where n.body <> ''
  having count(*) > 0;
  return null;
end
$$;
revoke all on function public.tickets_start_tasks() from public, anon, authenticated, service_role;

create or replace trigger tickets_start_tasks
  after insert on public.tickets
  referencing new table as new_rows
  for each statement execute function public.tickets_start_tasks();

-- The rows that were there before: 500 in a call, which is as many as submit_todos takes well.
select count(public.submit_todos(b.tasks)) as calls
from (
  select jsonb_agg(jsonb_build_object(
    'agent_type', 'triage',
    'prompt', t.body,
    'input_data', jsonb_build_object('ticket_id', t.id),
    'idempotency_key', 'ticket-' || t.id) order by t.id) as tasks
  from (
    select k.*, (row_number() over (order by k.id) - 1) / 500 as batch
    from public.tickets k
    -- Whoever inserted a row owns its task, and a key counts for each owner by itself: hence not by the key alone.
    where k.body <> '' and not exists (
      select from public.todolist d where d.agent_type = 'triage' and d.idempotency_key = 'ticket-' || k.id)) t
  group by t.batch) b;

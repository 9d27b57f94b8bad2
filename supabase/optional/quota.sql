-- A quota: how many open tasks (waiting, running, or asking something) each signed-in user may have.
--
-- Not a migration: copy it into one of your own (`supabase migration new quota`). It may be run again. To change the
-- quota, as the owner of the database:
--   update reactive_worker_private.limits set user_open_tasks = 20;
-- Back ends have none, also where they submit with `owner_id`. Where people submit without signing in (anon_demo.sql),
-- all of them share one, in which what back ends submitted for nobody counts, too.

alter table reactive_worker_private.limits add column if not exists user_open_tasks integer not null default 100;
comment on column reactive_worker_private.limits.user_open_tasks is 'Tasks of one user that may be open at once.';

-- Tasks of nobody count as those of one user.
create index if not exists todolist_open_owner_idx
  on public.todolist (coalesce(owner_id, '00000000-0000-0000-0000-000000000000'))
  where agent_status in ('pending', 'in_progress', 'input_required');

-- By statement, after it: a batch is counted as a whole. Tasks that are retried count as well; whoever has too many
-- (the quota was lowered) may still cancel and answer.
create or replace function reactive_worker_private.todolist_quota() returns trigger
language plpgsql security definer
set search_path = ''
as $$
declare
  c_nobody constant uuid := '00000000-0000-0000-0000-000000000000';
  v_most constant integer := (reactive_worker_private.limits()).user_open_tasks;
  v_owners uuid[];
  v_owner uuid;
  v_open integer;
begin
  if tg_op = 'INSERT' then
    select array_agg(distinct coalesce(n.owner_id, c_nobody)) into v_owners from new_rows n;
  else
    select array_agg(distinct coalesce(n.owner_id, c_nobody)) into v_owners
    from new_rows n join old_rows o on o.id = n.id
    where n.agent_status in ('pending', 'in_progress', 'input_required')
      and o.agent_status not in ('pending', 'in_progress', 'input_required');
  end if;
  foreach v_owner in array coalesce(v_owners, '{}') loop
    -- Two requests of one user at once would each not see the other's tasks: one waits for the other.
    perform pg_catalog.pg_advisory_xact_lock(
      pg_catalog.hashtextextended('reactive_worker quota ' || v_owner::text, 0));
    -- No further than needed: somebody may have a million. The zero is written out, as it is in the index.
    select count(*) into v_open from (
      select from public.todolist t
      where coalesce(t.owner_id, '00000000-0000-0000-0000-000000000000') = v_owner
        and t.agent_status in ('pending', 'in_progress', 'input_required')
      limit v_most + 1) o;
    if v_open > v_most then
      raise exception using errcode = 'PT429', table = 'todolist',
        message = format('a user may have at most %s open tasks', v_most),
        hint = 'Wait until some have ended, or cancel them.';
    end if;
  end loop;
  return null;
end
$$;
revoke all on function reactive_worker_private.todolist_quota() from public, anon, authenticated, service_role;

-- By the token, not by current_user: functions and triggers of yours that run as their owner shall not get around it.
create or replace trigger todolist_quota after insert on public.todolist
  referencing new table as new_rows
  for each statement when (auth.jwt() ->> 'role' in ('anon', 'authenticated'))
  execute function reactive_worker_private.todolist_quota();
create or replace trigger todolist_quota_again after update on public.todolist
  referencing old table as old_rows new table as new_rows
  for each statement when (auth.jwt() ->> 'role' in ('anon', 'authenticated'))
  execute function reactive_worker_private.todolist_quota();

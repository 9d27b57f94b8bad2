-- One bad row harms only itself: rows that refuse, rows that are locked, rows that may have killed their worker. The model
-- is told at the top of the tables' file.

-- Runs that were lost together: any of them may be what took the worker down.
create table reactive_worker_private.suspects (
  todolist_id uuid primary key references public.todolist (id) on delete cascade,
  -- The worker at whose end it was in flight: the same for all that were lost together.
  lost_with uuid not null,
  since timestamptz not null,
  -- How many tasks may be in flight in its worker while it runs, itself included.
  company integer not null,
  -- The worker that claims nothing until there is room for this one.
  reserved_by uuid,
  constraint suspects_company_positive check (company >= 1)
);
comment on table reactive_worker_private.suspects is
  'Tasks that were in flight when their worker was lost: they run in smaller company until one run tells.';

-- Rows whose change was refused, by a trigger of the project's own for example: how often, why, and until when nobody
-- tries again.
create table reactive_worker_private.refusals (
  todolist_id uuid primary key references public.todolist (id) on delete cascade,
  attempt integer not null,
  times integer not null,
  reason text not null,
  next_at timestamptz not null
);
comment on table reactive_worker_private.refusals is
  'Tasks whose claim, end or putting back was refused: how often for this attempt, and why.';

-- Trouble that is nobody's row: it hits whatever comes next as well, and passes. Then the whole call fails, to be made
-- again: no task shall be blamed for a full disk.
create function reactive_worker_private.is_weather(p_sqlstate text) returns boolean
language plpgsql immutable
set search_path = ''
as $$
begin
  -- Connections, read only, out of resources, operator, system, internal. 55 is busy, 40 a deadlock: they are the row's.
  return left(p_sqlstate, 2) in ('08', '25', '53', '57', '58', 'XX');
end
$$;

-- A row that somebody else has locked, or that lost a deadlock: not refused.
create function reactive_worker_private.is_busy(p_sqlstate text) returns boolean
language plpgsql immutable
set search_path = ''
as $$
begin
  return left(p_sqlstate, 2) = '40' or p_sqlstate = '55P03';
end
$$;

-- Waits for these rows, no longer than is polite: what a person has just cancelled is free again in a millisecond, what
-- a forgotten transaction holds is not. The time is below deadlock_timeout (1 s), so that two who wait for each other
-- part without an error. Tests that let one wait for another set app.settings.reactive_worker_lock_wait.
create function reactive_worker_private.wait_for(p_ids uuid[], p_share boolean) returns boolean
language plpgsql
set search_path = ''
set lock_timeout = '200ms'
as $$
begin
  perform set_config('lock_timeout',
    coalesce(nullif(current_setting('app.settings.reactive_worker_lock_wait', true), ''), '200ms'), true);
  if p_share then
    perform 1 from public.todolist t where t.id = any (p_ids) order by t.id for share;
  else
    perform 1 from public.todolist t where t.id = any (p_ids) order by t.id for update;
  end if;
  return true;
exception when lock_not_available or deadlock_detected then
  return false;
end
$$;

-- Locks these tasks, shared or for changing; returns those that are there and that somebody else keeps locked. Statements
-- after this one see what the previous holders wrote.
create function reactive_worker_private.lock_todos(p_ids uuid[], p_share boolean default false) returns uuid[]
language plpgsql
set search_path = ''
as $$
declare
  v_locked uuid[];
  v_busy uuid[];
begin
  if p_share then
    select array_agg(l.id) into v_locked
    from (select t.id from public.todolist t where t.id = any (p_ids) order by t.id for share skip locked) l;
  else
    select array_agg(l.id) into v_locked
    from (select t.id from public.todolist t where t.id = any (p_ids) order by t.id for update skip locked) l;
  end if;
  if cardinality(v_locked) = cardinality(p_ids) then
    return '{}';
  end if;
  select array_agg(t.id) into v_busy
  from public.todolist t where t.id = any (p_ids) and t.id <> all (coalesce(v_locked, '{}'));
  if v_busy is null or reactive_worker_private.wait_for(v_busy, p_share) then
    return '{}';
  end if;
  -- Some of them may have come free in the meantime.
  if p_share then
    select array_agg(l.id) into v_locked
    from (select t.id from public.todolist t where t.id = any (v_busy) order by t.id for share skip locked) l;
  else
    select array_agg(l.id) into v_locked
    from (select t.id from public.todolist t where t.id = any (v_busy) order by t.id for update skip locked) l;
  end if;
  return array(select b.id from unnest(v_busy) b (id) where b.id <> all (coalesce(v_locked, '{}')));
end
$$;

-- Notes that a change of a task was refused; returns how often that was so for this attempt. Pauses double, to an hour.
create function reactive_worker_private.note_refusal(p_id uuid, p_attempt integer, p_reason text) returns integer
language plpgsql
set search_path = ''
as $$
declare
  v_now timestamptz := public.reactive_worker_now();
  v_times integer;
begin
  insert into reactive_worker_private.refusals as r (todolist_id, attempt, times, reason, next_at)
  values (p_id, p_attempt, 1, left(p_reason, 1000), v_now + interval '1 second')
  on conflict (todolist_id) do update
  set times = case when r.attempt = excluded.attempt then r.times + 1 else 1 end, attempt = excluded.attempt,
    reason = excluded.reason,
    next_at = v_now + make_interval(secs => case when r.attempt = excluded.attempt
      then least(3600, 2 ^ least(r.times, 12)) else 1 end)
  returning r.times into v_times;
  return v_times;
end
$$;

-- Puts held tasks back. p_how:
--   released   handed back unharmed
--   lost       with their worker, alone: one failure; back with a pause, or failed when the budget is spent
--   suspected  with their worker, together: no failure, but a suspect from now on
-- A task that was asked to stop is cancelled instead. The caller has locked the rows, seen that they are in progress, and
-- calls this in a later statement. Without p_log nothing is written to the log: for logs that refuse it.
create function reactive_worker_private.put_back(p_ids uuid[], p_how text, p_log boolean default true) returns integer
language plpgsql
set search_path = ''
as $$
declare
  v_now timestamptz := public.reactive_worker_now();
  v_lost constant boolean := p_how = 'lost';
  v_count integer;
begin
  update reactive_worker_private.suspects s set reserved_by = null
  where s.todolist_id = any (p_ids) and s.reserved_by is not null;
  -- Who is lost alone is the culprit of those it was once lost together with.
  if v_lost then
    delete from reactive_worker_private.suspects c using reactive_worker_private.suspects s
    where s.todolist_id = any (p_ids) and c.lost_with = s.lost_with and c.todolist_id <> all (p_ids);
  end if;
  with held as materialized (
    select t.id, t.context_id, t.worker_id, t.attempt, t.cancel_reason,
      t.cancel_requested_at is not null as stop,
      t.failures + v_lost::integer as failures,
      v_lost and t.failures + 1 >= t.max_failures as spent,
      -- The snapshot is younger than the lock, so it holds what the previous holder wrote.
      (select coalesce(max(e.seq), 0) from public.events e where e.todolist_id = t.id) as seq
    from public.todolist t
    where t.id = any (p_ids)
  ), logged as (
    insert into public.events
      (todolist_id, seq, event_type, event_data, message, context_id, task_id, created_at, attempt, worker_id)
    select h.id, h.seq + l.step, l.event_type, l.event_data, l.message, coalesce(h.context_id, h.id::text), h.id::text,
      v_now, h.attempt, h.worker_id
    from held h
    cross join lateral (
      select 1, 'task_cancelled', h.cancel_reason,
        reactive_worker_private.status_update(h.id, h.context_id, 'TASK_STATE_CANCELED', v_now, h.cancel_reason)
      where h.stop
      union all
      select 1, case when p_how = 'released' then 'task_released' else 'task_lost' end,
        case when p_how <> 'released' then 'worker lost' end,
        jsonb_build_object('workerId', h.worker_id, 'attempt', h.attempt, 'failures', h.failures)
          || case when p_how = 'suspected' then '{"suspect": true}' else '{}' end::jsonb
      where not h.stop
      union all
      select 2, 'task_failed', 'worker lost',
        reactive_worker_private.status_update(h.id, h.context_id, 'TASK_STATE_FAILED', v_now, 'worker lost')
      where h.spent and not h.stop
    ) l (step, event_type, message, event_data)
    where p_log
  ), together as materialized (
    select t.worker_id, count(*) as n from public.todolist t
    where t.agent_status = 'in_progress' and p_how = 'suspected'
      and t.worker_id in (select h.worker_id from held h)
    group by t.worker_id
  ), blamed as (
    insert into reactive_worker_private.suspects as s (todolist_id, lost_with, since, company)
    -- A row that nobody held has no worker it was lost with.
    select h.id, coalesce(h.worker_id, h.id), v_now, greatest(1, coalesce(w.n, 1) / 2)
    from held h left join together w on w.worker_id = h.worker_id
    where p_how <> 'released' and not h.stop and not h.spent
    on conflict (todolist_id) do update
    set lost_with = excluded.lost_with, company = least(s.company, excluded.company), reserved_by = null
  )
  update public.todolist t
  set agent_status = case when h.stop then 'cancelled' when h.spent then 'failed' else 'pending' end,
    task_state = case
      when h.stop then 'TASK_STATE_CANCELED' when h.spent then 'TASK_STATE_FAILED' else t.task_state end,
    failures = case when h.stop then t.failures else h.failures end,
    worker_id = case when h.stop or h.spent then t.worker_id end,
    completed_at = case when h.stop or h.spent then v_now end,
    -- Back at once the first time, so that a restart costs nobody more than the lease; then 1, 2, 4 ... 60 s, so
    -- that a task that kills its workers does not take the fleet down in a second.
    available_at = case
      when h.stop or h.spent then t.available_at
      when v_lost and h.failures > 1 then v_now + make_interval(secs => least(60, 2 ^ least(h.failures - 2, 10)))
      else v_now end,
    error = case when h.spent and not h.stop
      then jsonb_build_object('type', 'WorkerLost', 'message', 'worker lost') else t.error end,
    agent_output = case when h.spent and not h.stop
      then '{"error": {"type": "WorkerLost", "message": "worker lost"}}'::jsonb else t.agent_output end
  from held h
  where t.id = h.id;
  get diagnostics v_count = row_count;
  return v_count;
end
$$;

-- One failure of a locked task, whose claim or whose end was refused: back to pending with a pause that doubles, or
-- failed with this error. What refused the claim or the end may refuse this, too: then the other status is tried, then
-- both without a word in the log. Returns the status it has now, null if even that was refused.
create function reactive_worker_private.count_failure(p_id uuid, p_error jsonb) returns text
language plpgsql
set search_path = ''
as $$
declare
  v_now timestamptz := public.reactive_worker_now();
  v_todo public.todolist;
  v_failures integer;
  v_due timestamptz;
  v_wanted text;
  v_status text;
begin
  select t.* into v_todo from public.todolist t where t.id = p_id;
  v_failures := v_todo.failures + 1;
  v_due := v_now + make_interval(secs => least(3600, 2 ^ least(v_failures - 1, 12)));
  v_wanted := case when v_todo.cancel_requested_at is not null then 'cancelled'
    when v_failures >= v_todo.max_failures then 'failed' else 'pending' end;
  for v_try in 1..4 loop
    v_status := case when v_try in (1, 3) then v_wanted else 'pending' end;
    continue when v_try in (2, 4) and v_wanted = 'pending';
    begin
      update public.todolist t
      set agent_status = v_status,
        -- A claim that was refused was an attempt: whoever heard of the row hears of it anew.
        attempt = t.attempt + (t.agent_status = 'pending')::integer,
        task_state = case v_status when 'failed' then 'TASK_STATE_FAILED' when 'cancelled' then 'TASK_STATE_CANCELED'
          else t.task_state end,
        failures = v_failures, error = p_error,
        agent_output = case when v_status = 'failed' then jsonb_build_object('error', p_error) else t.agent_output end,
        worker_id = case when v_status <> 'pending' then t.worker_id end,
        completed_at = case when v_status <> 'pending' then v_now end,
        available_at = case when v_status = 'pending' then v_due else t.available_at end
      where t.id = p_id;
      if v_try <= 2 then
        insert into public.events
          (todolist_id, seq, event_type, event_data, message, context_id, task_id, created_at, attempt, worker_id)
        select p_id, (select coalesce(max(e.seq), 0) + 1 from public.events e where e.todolist_id = p_id),
          case v_status when 'failed' then 'task_failed' when 'cancelled' then 'task_cancelled' else 'task_retrying' end,
          case when v_status = 'pending' then jsonb_build_object('retry', jsonb_build_object('failures', v_failures,
              'maxFailures', v_todo.max_failures, 'error', p_error,
              'availableAt', reactive_worker_private.rfc3339(v_due)))
            else reactive_worker_private.status_update(p_id, v_todo.context_id, case v_status
              when 'failed' then 'TASK_STATE_FAILED' else 'TASK_STATE_CANCELED' end, v_now, p_error ->> 'message') end,
          p_error ->> 'message', coalesce(v_todo.context_id, p_id::text), p_id::text, v_now, v_todo.attempt,
          v_todo.worker_id;
      end if;
      delete from reactive_worker_private.refusals r where r.todolist_id = p_id;
      return v_status;
    exception when others then
      if reactive_worker_private.is_weather(sqlstate) then
        raise;
      end if;
    end;
  end loop;
  return null;
end
$$;

-- What is put on record for a change that was refused.
create function reactive_worker_private.refusal(p_reason text) returns jsonb
language plpgsql immutable
set search_path = ''
as $$
begin
  return jsonb_build_object('type', 'Refused', 'message', left(p_reason, 1000));
end
$$;

-- put_back for all, or for each by itself when that is refused. Returns those it could not put back,
-- [{"id", "attempt", "reason"}].
create function reactive_worker_private.put_back_each(p_ids uuid[], p_how text) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  v_refused jsonb := '[]';
  v_reason text;
  v_attempt integer;
  v_id uuid;
begin
  if coalesce(cardinality(p_ids), 0) = 0 then
    return v_refused;
  end if;
  begin
    perform reactive_worker_private.put_back(p_ids, p_how);
    return v_refused;
  exception when others then
    if reactive_worker_private.is_weather(sqlstate) then
      raise;
    end if;
  end;
  foreach v_id in array p_ids loop
    v_reason := null;
    -- The second time without the log, which may be what refuses.
    for v_try in 1..2 loop
      begin
        perform reactive_worker_private.put_back(array[v_id], p_how, v_try = 1);
        v_reason := null;
        exit;
      exception when others then
        if reactive_worker_private.is_weather(sqlstate) then
          raise;
        end if;
        v_reason := coalesce(v_reason, sqlerrm);
      end;
    end loop;
    if v_reason is not null then
      select t.attempt into v_attempt from public.todolist t where t.id = v_id;
      perform reactive_worker_private.note_refusal(v_id, v_attempt, v_reason);
      v_refused := v_refused || jsonb_build_object('id', v_id, 'attempt', v_attempt, 'reason', v_reason);
    end if;
  end loop;
  return v_refused;
end
$$;

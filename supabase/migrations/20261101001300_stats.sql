-- How many tasks there are; how long they wait and run, how many end, and why some fail: over a window of recent time, so
-- that what it costs does not follow the size of the table.

-- Counts, by an index of the table alone. By agent type for the p_types busiest, what is open counting first; `others`
-- sums up the rest, so that a type for each customer makes no answer of megabytes.
create function public.todo_stats(p_agent_type text default null, p_types integer default 100) returns jsonb
language plpgsql stable
set search_path = ''
as $$
declare
  v_now timestamptz := public.reactive_worker_now();
  v_counts jsonb;
  v_pending_types text[];
  v_pending_type_count integer;
  v_oldest timestamptz;
begin
  if p_types is null or p_types not between 1 and 1000 then
    raise exception using errcode = '22023',
      message = format('p_types must be between 1 and 1000, got %s', coalesce(p_types::text, 'null'));
  end if;
  with counted as materialized (
    select t.agent_type, t.agent_status, count(*) as n
    from public.todolist t
    where p_agent_type is null or t.agent_type = p_agent_type
    group by t.agent_type, t.agent_status
  ), typed as materialized (
    select c.agent_type,
      sum(c.n) as total_tasks,
      coalesce(sum(c.n) filter (where c.agent_status = 'pending'), 0) as pending_tasks,
      coalesce(sum(c.n) filter (where c.agent_status = 'in_progress'), 0) as in_progress_tasks,
      coalesce(sum(c.n) filter (where c.agent_status = 'input_required'), 0) as input_required_tasks,
      coalesce(sum(c.n) filter (where c.agent_status = 'completed'), 0) as completed_tasks,
      coalesce(sum(c.n) filter (where c.agent_status = 'failed'), 0) as failed_tasks,
      coalesce(sum(c.n) filter (where c.agent_status = 'cancelled'), 0) as cancelled_tasks
    from counted c
    group by c.agent_type
  ), best as materialized (
    select y.* from typed y
    order by y.pending_tasks + y.in_progress_tasks + y.input_required_tasks desc, y.total_tasks desc, y.agent_type
    limit p_types
  ), sums (who, figures) as (
    select b.agent_type, to_jsonb(b) - 'agent_type' from best b
    union all
    -- '' is no agent type: the sum of all.
    select '', jsonb_build_object(
      'total_tasks', coalesce(sum(y.total_tasks), 0), 'pending_tasks', coalesce(sum(y.pending_tasks), 0),
      'in_progress_tasks', coalesce(sum(y.in_progress_tasks), 0),
      'input_required_tasks', coalesce(sum(y.input_required_tasks), 0),
      'completed_tasks', coalesce(sum(y.completed_tasks), 0), 'failed_tasks', coalesce(sum(y.failed_tasks), 0),
      'cancelled_tasks', coalesce(sum(y.cancelled_tasks), 0), 'agent_types', count(*))
    from typed y
  )
  select jsonb_object_agg(s.who, s.figures), (select count(*) from typed y where y.pending_tasks > 0),
    (select array_agg(p.agent_type) from (select y.agent_type from typed y where y.pending_tasks > 0 limit 200) p)
  into v_counts, v_pending_type_count, v_pending_types
  from sums s;

  -- How long the task that has waited longest could have been running: scheduled ones do not wait yet. One step down an
  -- index for each type, or with more of them through all of that index.
  if v_pending_type_count <= 200 then
    select min(o.available_at) into v_oldest
    from unnest(v_pending_types) y (agent_type)
    cross join lateral (
      select t.available_at from public.todolist t
      where t.agent_status = 'pending' and t.agent_type = y.agent_type
      order by t.available_at limit 1
    ) o;
  else
    select min(t.available_at) into v_oldest from public.todolist t
    where t.agent_status = 'pending' and (p_agent_type is null or t.agent_type = p_agent_type);
  end if;

  return (v_counts -> '' ) - 'agent_types' || jsonb_build_object(
    'oldest_pending_seconds', case when v_oldest <= v_now then extract(epoch from v_now - v_oldest) end,
    'workers_alive', (select count(*) from public.workers w where w.lease_until > v_now),
    'by_agent_type', v_counts - '',
    'others', (
      select jsonb_build_object('agent_types', (v_counts #>> '{"",agent_types}')::bigint
          - (select count(*) from jsonb_object_keys(v_counts - '')))
        || jsonb_object_agg(f.key, f.value::bigint - coalesce((
          select sum((b.value ->> f.key)::bigint) from jsonb_each(v_counts - '') b), 0))
      from jsonb_each_text((v_counts -> '') - 'agent_types') f
    ));
end
$$;
comment on function public.todo_stats(text, integer) is 'How many tasks there are, by status and agent type.';

-- What ended last. agent_status is in it, so that counting reads the index alone.
create index todolist_ended_idx on public.todolist (completed_at, agent_status) where completed_at is not null;
-- What failed last, among however many that did not.
create index todolist_failures_idx on public.todolist (completed_at) where agent_status = 'failed';

-- The times of at most the last 10,000 tasks that ended within the window; failures likewise.
create function public.todo_timings(p_agent_type text default null, p_window_seconds double precision default 3600)
returns jsonb
language plpgsql stable
set search_path = ''
as $$
declare
  c_sample constant integer := 10000;
  v_now timestamptz := public.reactive_worker_now();
  v_since timestamptz := v_now
    - reactive_worker_private.seconds_within('p_window_seconds', p_window_seconds, 1, 31536000);
  v_times jsonb;
  v_minutes jsonb;
  v_failures jsonb;
begin
  -- The sample is taken before the type is asked for: a rare type among many others costs no more.
  with ended as materialized (
    select t.agent_type, t.agent_status, t.created_at, t.available_at, t.started_at, t.completed_at
    from public.todolist t
    where t.completed_at > v_since and t.completed_at <= v_now
    order by t.completed_at desc limit c_sample
  ), timed as (
    select
      -- A task that was tried again is due later than it first started; then it waited from its beginning.
      extract(epoch from e.started_at - case
        when e.available_at <= e.started_at then greatest(e.created_at, e.available_at) else e.created_at end) as wait,
      extract(epoch from e.completed_at - e.started_at) as run
    from ended e
    where e.started_at is not null and e.agent_status in ('completed', 'failed')
      and (p_agent_type is null or e.agent_type = p_agent_type)
  )
  select jsonb_build_object(
    'sampled', count(*),
    'wait_p50', percentile_disc(0.5) within group (order by greatest(d.wait, 0)),
    'wait_p95', percentile_disc(0.95) within group (order by greatest(d.wait, 0)),
    'run_p50', percentile_disc(0.5) within group (order by greatest(d.run, 0)),
    'run_p95', percentile_disc(0.95) within group (order by greatest(d.run, 0)))
  into v_times
  from timed d;

  -- The ten minutes before this one, oldest first.
  select jsonb_agg(coalesce(c.n, 0) order by m.minute) into v_minutes
  from generate_series(10, 1, -1) b (back)
  cross join lateral (select v_now - b.back * interval '1 minute' as minute) m
  left join lateral (
    select count(*) as n from public.todolist t
    where t.completed_at > m.minute and t.completed_at <= m.minute + interval '1 minute'
      and t.agent_status = 'completed' and (p_agent_type is null or t.agent_type = p_agent_type)
  ) c on true;

  with failed as materialized (
    select t.agent_type, t.error
    from public.todolist t
    where t.agent_status = 'failed' and t.completed_at > v_since and t.completed_at <= v_now
    order by t.completed_at desc limit c_sample
  )
  select jsonb_object_agg(f.cause, f.n) into v_failures
  from (
    select coalesce(x.error ->> 'type', 'unknown') as cause, count(*) as n
    from failed x
    where (p_agent_type is null or x.agent_type = p_agent_type)
    group by 1 order by 2 desc, 1 limit 20
  ) f;

  return v_times || jsonb_build_object(
    'window_seconds', p_window_seconds,
    'completed_by_minute', v_minutes,
    'completed_per_minute', (select round(avg(m.value::numeric), 1) from jsonb_array_elements(v_minutes) m (value)),
    'failures_by_cause', coalesce(v_failures, '{}'));
end
$$;
comment on function public.todo_timings(text, double precision) is
  'Recent wait and run times in seconds, completed tasks by minute, failures by cause.';

revoke all on function public.todo_stats(text, integer), public.todo_timings(text, double precision)
  from public, anon, authenticated, service_role, reactive_worker;
grant execute on function
  public.todo_stats(text, integer),
  public.todo_timings(text, double precision),
  reactive_worker_private.seconds_within(text, double precision, double precision, double precision)
  to service_role;

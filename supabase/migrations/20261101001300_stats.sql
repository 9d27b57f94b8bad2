-- How long tasks wait and run, how many end, and why some fail: over a window of recent time, so that what it costs
-- does not follow the size of the table.

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

revoke all on function public.todo_timings(text, double precision)
  from public, anon, authenticated, service_role, reactive_worker;
grant execute on function public.todo_timings(text, double precision) to service_role;

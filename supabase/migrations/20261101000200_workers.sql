-- Worker registry: leases, control channel, probe.

-- A finite number within [p_least, p_most], or an error that names the argument.
create function reactive_worker_private.seconds_within(
  p_what text, p_value double precision, p_least double precision, p_most double precision
) returns interval
language plpgsql immutable
set search_path = ''
as $$
begin
  -- NaN is greater than every number to PostgreSQL, so the comparison refuses it too.
  if p_value is null or p_value < p_least or p_value > p_most then
    raise exception using errcode = '22023',
      message = format('%s must be between %s and %s seconds, got %s',
        p_what, p_least, p_most, coalesce(p_value::text, 'null'));
  end if;
  return make_interval(secs => p_value);
end
$$;

-- Puts back everything a worker holds, a thousand rows at a time. The caller holds the lock of the worker's row.
create function reactive_worker_private.put_back_all(p_worker_id uuid, p_lost boolean) returns integer
language plpgsql
set search_path = ''
as $$
declare
  v_ids uuid[];
  v_count integer := 0;
begin
  loop
    select array_agg(h.id) into v_ids
    from (
      select t.id from public.todolist t
      where t.agent_status = 'in_progress' and t.worker_id = p_worker_id
      order by t.id limit 1000
      for update
    ) h;
    exit when v_ids is null;
    v_count := v_count + reactive_worker_private.put_back(v_ids, p_lost);
  end loop;
  return v_count;
end
$$;

create function public.register_worker(
  p_worker_id uuid, p_name text, p_agent_types text[], p_concurrency integer, p_lease_seconds double precision,
  p_info jsonb default null
) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  v_now timestamptz := public.reactive_worker_now();
  v_lease_until timestamptz := v_now
    + reactive_worker_private.seconds_within('p_lease_seconds', p_lease_seconds, 0.1, 86400);
  v_old_lease timestamptz;
  v_desired_state text;
begin
  if p_worker_id is null then
    raise exception using errcode = '22023', message = 'p_worker_id must not be null';
  end if;
  if coalesce(cardinality(p_agent_types), 0) = 0 or array_position(p_agent_types, null) is not null then
    raise exception using errcode = '22023', message = 'p_agent_types must name at least one agent type and no null';
  end if;
  if p_concurrency is null or p_concurrency < 1 then
    raise exception using errcode = '22023',
      message = format('p_concurrency must be at least 1, got %s', coalesce(p_concurrency::text, 'null'));
  end if;

  select w.lease_until into v_old_lease from public.workers w where w.id = p_worker_id for update;
  -- Somebody who comes back after the lease ran out has stopped what it ran. If no sweep was faster, its tasks
  -- would now stay in progress for ever under the fresh lease, with nobody running them.
  if v_old_lease is null or v_old_lease <= v_now then
    perform reactive_worker_private.put_back_all(p_worker_id, p_lost => true);
  end if;

  insert into public.workers as w
    (id, name, agent_types, concurrency, started_at, heartbeat_at, lease_until, alive_since, info)
  values (p_worker_id, coalesce(p_name, ''), p_agent_types, p_concurrency, v_now, v_now, v_lease_until, v_now,
    coalesce(p_info, '{}'))
  on conflict (id) do update
  set name = excluded.name, agent_types = excluded.agent_types, concurrency = excluded.concurrency,
    heartbeat_at = excluded.heartbeat_at, lease_until = excluded.lease_until, info = excluded.info,
    alive_since = case when w.lease_until <= v_now then v_now else w.alive_since end;

  -- Whoever paused this worker still wants it paused.
  insert into public.worker_mailbox (worker_id) values (p_worker_id) on conflict (worker_id) do nothing;
  select m.desired_state into v_desired_state from public.worker_mailbox m where m.worker_id = p_worker_id;

  return jsonb_build_object(
    'schema_version', public.reactive_worker_schema_version(),
    'now', v_now, 'lease_until', v_lease_until, 'desired_state', v_desired_state);
end
$$;

create function public.heartbeat_worker(
  p_worker_id uuid, p_lease_seconds double precision, p_in_flight jsonb default '[]', p_info jsonb default null
) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  v_now timestamptz := public.reactive_worker_now();
  v_lease_until timestamptz := v_now
    + reactive_worker_private.seconds_within('p_lease_seconds', p_lease_seconds, 0.1, 86400);
  v_known boolean;
  v_cancel jsonb;
  v_lost jsonb;
  v_stray jsonb;
  v_desired_state text;
  v_signal_at timestamptz;
begin
  perform reactive_worker_private.check_runs('p_in_flight', p_in_flight);

  -- First of all, so that whatever this signal was about is seen by the statements below. Push can be so quick that
  -- the signal is heard before the transaction it tells of is visible: the worker compares, and asks again.
  select m.desired_state, m.signal_at into v_desired_state, v_signal_at
  from public.worker_mailbox m where m.worker_id = p_worker_id;

  -- A lease that ran out may be renewed as long as no sweep has condemned the worker: both take the row's lock, so
  -- one of them is first. An outage of the database outlasts every lease, and a result computed meanwhile still
  -- counts.
  update public.workers w
  set heartbeat_at = v_now, lease_until = v_lease_until, info = coalesce(p_info, w.info),
    alive_since = case when w.lease_until <= v_now then v_now else w.alive_since end
  where w.id = p_worker_id and w.lease_until > 'epoch';
  v_known := found;

  with runs as materialized (
    select r.id, t.cancel_requested_at is not null as stop,
      coalesce(t.agent_status = 'in_progress' and t.worker_id = p_worker_id and t.attempt = r.attempt, false) as held
    from jsonb_to_recordset(p_in_flight) as r (id uuid, attempt integer)
    left join public.todolist t on t.id = r.id
  )
  select coalesce(jsonb_agg(r.id) filter (where r.held and r.stop), '[]'),
    coalesce(jsonb_agg(r.id) filter (where not r.held), '[]')
  into v_cancel, v_lost
  from runs r;

  -- Held by this worker, and it does not know: the answer to a claim was lost on its way. Nobody runs these, and a
  -- living worker's tasks are never swept; the worker hands them back once it has no claim under way.
  select coalesce(jsonb_agg(jsonb_build_object('id', s.id, 'attempt', s.attempt)), '[]') into v_stray
  from (
    select t.id, t.attempt from public.todolist t
    where t.agent_status = 'in_progress' and t.worker_id = p_worker_id
      and not exists (
        select from jsonb_to_recordset(p_in_flight) as r (id uuid, attempt integer)
        where r.id = t.id and r.attempt = t.attempt)
    limit 1000
  ) s;

  return jsonb_build_object(
    'stray', v_stray,
    -- When the next of the others is due to be called dead, so that somebody sweeps in that moment: a living worker
    -- has renewed by then, and recovery does not have to wait for a periodic sweep.
    'next_lease_end', (select min(w.lease_until) from public.workers w where w.id <> p_worker_id),
    'known', v_known, 'now', v_now, 'lease_until', case when v_known then v_lease_until end,
    'desired_state', v_desired_state, 'signal_at', v_signal_at,
    'cancel', v_cancel, 'lost', v_lost,
    -- Whose messages wait to be read: the worker asks read_steering for them.
    'steer', reactive_worker_private.steered(p_in_flight));
end
$$;

-- [{"id", "attempt"}], as heartbeats and releases take it.
create function reactive_worker_private.check_runs(p_what text, p_runs jsonb) returns void
language plpgsql immutable
set search_path = ''
as $$
declare
  v_bad jsonb;
begin
  if p_runs is null or jsonb_typeof(p_runs) <> 'array' then
    raise exception using errcode = '22023', message = format('%s must be an array of {"id", "attempt"}', p_what);
  end if;
  select r into v_bad from jsonb_array_elements(p_runs) r
  where jsonb_typeof(r) <> 'object' or not reactive_worker_private.is_uuid(r ->> 'id')
    or not reactive_worker_private.is_whole(r -> 'attempt', 0, 2147483647)
  limit 1;
  if found then
    raise exception using errcode = '22023',
      message = format('%s must be an array of {"id", "attempt"}, got an item %s', p_what, left(v_bad::text, 200));
  end if;
end
$$;

create function public.unregister_worker(p_worker_id uuid) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  v_released integer;
begin
  perform 1 from public.workers w where w.id = p_worker_id for update;
  v_released := reactive_worker_private.put_back_all(p_worker_id, p_lost => false);
  -- The mailbox goes with it (foreign key), after the rows: that is the lock order.
  delete from public.workers w where w.id = p_worker_id;
  return jsonb_build_object('released', v_released);
end
$$;

create function public.touch_probe(p_worker_id uuid) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  v_probe_at timestamptz;
begin
  update public.worker_mailbox m set probe_at = public.reactive_worker_now()
  where m.worker_id = p_worker_id
  returning m.probe_at into v_probe_at;
  if not found then
    raise exception using errcode = 'RW001',
      message = format('worker %s is unknown or its lease ran out: register again', p_worker_id);
  end if;
  return jsonb_build_object('probe_at', v_probe_at);
end
$$;

create function public.set_worker_state(p_worker_id uuid, p_state text) returns jsonb
language plpgsql
set search_path = ''
as $$
begin
  if p_state is null or p_state not in ('running', 'paused', 'draining') then
    raise exception using errcode = '22023',
      message = format('p_state must be running, paused or draining, got %s', coalesce(p_state, 'null'));
  end if;
  update public.worker_mailbox m set desired_state = p_state, signal_at = public.reactive_worker_now()
  where m.worker_id = p_worker_id;
  if not found then
    raise exception using errcode = 'PT404', message = format('worker %s not found', p_worker_id);
  end if;
  return jsonb_build_object('worker_id', p_worker_id, 'desired_state', p_state);
end
$$;

create function public.list_workers() returns jsonb
language sql stable
set search_path = ''
as $$
  select coalesce(jsonb_agg(jsonb_build_object(
    'id', w.id, 'name', w.name, 'agent_types', w.agent_types, 'concurrency', w.concurrency,
    'started_at', w.started_at, 'heartbeat_at', w.heartbeat_at, 'lease_until', w.lease_until,
    'alive', w.lease_until > public.reactive_worker_now(), 'desired_state', m.desired_state,
    'in_progress', (select count(*) from public.todolist t
                    where t.agent_status = 'in_progress' and t.worker_id = w.id),
    'info', w.info) order by w.started_at, w.id), '[]')
  from public.workers w
  left join public.worker_mailbox m on m.worker_id = w.id
$$;

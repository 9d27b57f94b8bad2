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

-- Puts back everything a worker holds, a thousand rows at a time. The caller holds the lock of the worker's row. Returns
-- how many, and what is left: locked by somebody else, or refused.
create function reactive_worker_private.put_back_all(
  p_worker_id uuid, p_how text, out put_back integer, out busy jsonb, out refused jsonb
)
language plpgsql
set search_path = ''
as $$
declare
  v_ids uuid[];
  v_left uuid[] := '{}';
  v_busy uuid[];
  v_bad jsonb;
begin
  put_back := 0;
  refused := '[]';
  loop
    select array_agg(h.id) into v_ids
    from (
      select t.id from public.todolist t
      where t.agent_status = 'in_progress' and t.worker_id = p_worker_id and t.id <> all (v_left)
      order by t.id limit 1000
    ) h;
    exit when v_ids is null;
    v_busy := reactive_worker_private.lock_todos(v_ids);
    select array_agg(t.id) into v_ids from public.todolist t
    where t.id = any (v_ids) and t.id <> all (v_busy) and t.agent_status = 'in_progress' and t.worker_id = p_worker_id;
    v_bad := reactive_worker_private.put_back_each(v_ids, p_how);
    put_back := put_back + coalesce(cardinality(v_ids), 0) - jsonb_array_length(v_bad);
    refused := refused || v_bad;
    v_left := v_left || v_busy || array(select (r ->> 'id')::uuid from jsonb_array_elements(v_bad) r);
  end loop;
  select coalesce(jsonb_agg(jsonb_build_object('id', t.id, 'attempt', t.attempt)), '[]') into busy
  from public.todolist t
  where t.id = any (v_left) and t.id <> all (array(select (r ->> 'id')::uuid from jsonb_array_elements(refused) r));
end
$$;

-- How a worker's runs are lost: alone, or together.
create function reactive_worker_private.how_lost(p_worker_id uuid) returns text
language plpgsql stable
set search_path = ''
as $$
begin
  return case when (
    select count(*) from (
      select from public.todolist t where t.agent_status = 'in_progress' and t.worker_id = p_worker_id limit 2) t
  ) > 1 then 'suspected' else 'lost' end;
end
$$;

-- The agent types this request's token names (`"agent_types": ["a"]`); null when it names none, which is for all.
create function reactive_worker_private.token_types() returns text[]
language plpgsql stable
set search_path = ''
as $$
declare
  v_types jsonb := auth.jwt() -> 'agent_types';
begin
  return case when jsonb_typeof(v_types) = 'array' then array(select jsonb_array_elements_text(v_types)) end;
end
$$;

-- What a worker says about itself is shown to people, by whatever they look with.
create function reactive_worker_private.info_problem(p_name text, p_info jsonb) returns text
language plpgsql immutable
set search_path = ''
as $$
declare
  v_size integer := octet_length(p_info::text);
begin
  return case
    when char_length(p_name) > 200 or reactive_worker_private.has_control(p_name)
      then 'p_name must be a text of at most 200 characters without control characters'
    when jsonb_typeof(p_info) <> 'object' then 'p_info must be an object'
    when v_size > 16384 then format('p_info must have at most 16384 bytes, got %s', v_size)
    else 'p_info ' || reactive_worker_private.json_problem(p_info, v_size, 16, 309) end;
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
  v_type text;
  v_problem text;
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

  select y into v_type from unnest(p_agent_types) y
  where char_length(y) not between 1 and 100 or reactive_worker_private.has_control(y) limit 1;
  if found then
    raise exception using errcode = '22023',
      message = format('p_agent_types must be texts of 1 to 100 characters without control characters, got %s',
        to_json(left(v_type, 100)));
  end if;
  select y into v_type from unnest(p_agent_types) y where y <> all (reactive_worker_private.token_types()) limit 1;
  if found then
    raise exception using errcode = '42501', message = format('this token does not serve the agent type %s', v_type);
  end if;
  v_problem := reactive_worker_private.info_problem(p_name, p_info);
  if v_problem is not null then
    raise exception using errcode = '22023', message = v_problem;
  end if;

  select w.lease_until into v_old_lease from public.workers w where w.id = p_worker_id for update;
  -- Somebody who comes back after the lease ran out has stopped what it ran. If no sweep was faster, its tasks
  -- would now stay in progress for ever under the fresh lease, with nobody running them.
  if v_old_lease is null or v_old_lease <= v_now then
    perform reactive_worker_private.put_back_all(p_worker_id, reactive_worker_private.how_lost(p_worker_id));
  end if;

  insert into public.workers as w
    (id, name, agent_types, concurrency, started_at, heartbeat_at, lease_until, alive_since, info)
  values (p_worker_id, coalesce(p_name, ''), p_agent_types, p_concurrency, v_now, v_now, v_lease_until, v_now,
    coalesce(p_info, '{}'))
  on conflict (id) do update
  set name = excluded.name, agent_types = excluded.agent_types, concurrency = excluded.concurrency,
    heartbeat_at = excluded.heartbeat_at, lease_until = excluded.lease_until, info = excluded.info, lost_runs = null,
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
  v_problem text := reactive_worker_private.info_problem('', p_info);
begin
  perform reactive_worker_private.check_runs('p_in_flight', p_in_flight);
  if v_problem is not null then
    raise exception using errcode = '22023', message = v_problem;
  end if;

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
    select r.id, r.attempt, t.cancel_requested_at is not null as stop,
      coalesce(t.agent_status = 'in_progress' and t.worker_id = p_worker_id and t.attempt = r.attempt, false) as held
    from jsonb_to_recordset(p_in_flight) as r (id uuid, attempt integer)
    left join public.todolist t on t.id = r.id
  )
  select
    coalesce(jsonb_agg(jsonb_build_object('id', r.id, 'attempt', r.attempt)) filter (where r.held and r.stop), '[]'),
    coalesce(jsonb_agg(jsonb_build_object('id', r.id, 'attempt', r.attempt)) filter (where not r.held), '[]')
  into v_cancel, v_lost
  from runs r;
  perform reactive_worker_private.forget_taken_back(p_worker_id, p_in_flight);

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

-- Set back to pending by hand while this worker ran it, and the worker no longer does: from now on it may have it again.
-- Mostly there is nothing to be found, by an index that holds nothing.
create function reactive_worker_private.forget_taken_back(p_worker_id uuid, p_in_flight jsonb) returns void
language plpgsql
set search_path = ''
as $$
declare
  v_id uuid;
begin
  for v_id in
    select t.id from public.todolist t
    where t.agent_status = 'pending' and t.worker_id = p_worker_id
      and not exists (select from jsonb_to_recordset(p_in_flight) as r (id uuid) where r.id = t.id)
    order by t.id limit 1000
    for update skip locked
  loop
    begin
      update public.todolist t set worker_id = null where t.id = v_id;
    exception when others then
      -- No heartbeat shall fail because of one row: the next one tries again.
      if reactive_worker_private.is_weather(sqlstate) then
        raise;
      end if;
    end;
  end loop;
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
  v_left record;
begin
  perform 1 from public.workers w where w.id = p_worker_id for update;
  v_left := reactive_worker_private.put_back_all(p_worker_id, 'released');
  if v_left.busy = '[]' and v_left.refused = '[]' then
    -- The mailbox goes with it (foreign key), after the rows: that is the lock order.
    delete from public.workers w where w.id = p_worker_id;
  else
    -- What could not be put back now is left to the living, who shall know that nothing has killed this worker.
    update public.workers w set lease_until = 'epoch', lost_runs = 0 where w.id = p_worker_id;
  end if;
  return jsonb_build_object('released', v_left.put_back, 'busy', v_left.busy, 'refused', v_left.refused);
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
  -- The thousand that were heard of last.
  from (select * from public.workers order by heartbeat_at desc limit 1000) w
  left join public.worker_mailbox m on m.worker_id = w.id
$$;

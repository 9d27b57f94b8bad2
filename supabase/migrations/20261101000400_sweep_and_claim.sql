-- From pending to in_progress: who is due, and who gets it.

-- The best due tasks of one agent type, at most p_limit: highest priority first, then by age. Reads about as many
-- index entries as it returns, whatever else is waiting.
create function reactive_worker_private.due_todos(p_agent_type text, p_now timestamptz, p_limit integer)
returns table (
  id uuid, agent_type varchar, priority integer, attempt integer, available_at timestamptz, created_at timestamptz,
  owner_id uuid, context_id varchar)
language plpgsql stable
set search_path = ''
as $$
declare
  v_due integer;
  v_found integer := 0;
  v_rows integer;
  v_priority bigint := 2147483648;  -- above every integer
begin
  -- Few are due, perhaps beside millions scheduled for later: take them all by their due time. The index by priority
  -- would have to step over every later one.
  select count(*) into v_due from (
    select 1 from public.todolist t
    where t.agent_status = 'pending' and t.agent_type = p_agent_type and t.available_at <= p_now
    limit p_limit + 1
  ) d;
  if v_due <= p_limit then
    return query
      select t.id, t.agent_type, t.priority, t.attempt, t.available_at, t.created_at, t.owner_id, t.context_id
      from public.todolist t
      where t.agent_status = 'pending' and t.agent_type = p_agent_type and t.available_at <= p_now
      order by t.available_at
      limit p_limit;
    return;
  end if;

  -- Many are due: from priority to priority, and within each from the oldest on, until there are enough.
  loop
    select t.priority into v_priority from public.todolist t
    where t.agent_status = 'pending' and t.agent_type = p_agent_type and t.priority < v_priority
    order by t.priority desc limit 1;
    exit when not found;
    return query
      select t.id, t.agent_type, t.priority, t.attempt, t.available_at, t.created_at, t.owner_id, t.context_id
      from public.todolist t
      where t.agent_status = 'pending' and t.agent_type = p_agent_type and t.priority = v_priority
        and t.available_at <= p_now
      order by t.available_at, t.id
      limit p_limit - v_found;
    get diagnostics v_rows = row_count;
    v_found := v_found + v_rows;
    exit when v_found >= p_limit;
  end loop;
end
$$;

-- The same, fairly: of each owner the best, so that ten thousand tasks of one do not hide ten of another. `place` counts
-- within the owner; `more` marks the last one taken of an owner who may have more. Reads at most about four times as
-- many index entries as the limit, and one for each owner, whatever else is waiting. Tasks without an owner (a back
-- end's own) are those of the zero uuid.
create function reactive_worker_private.due_todos_by_owner(p_agent_type text, p_now timestamptz, p_limit integer)
returns table (
  id uuid, agent_type varchar, priority integer, attempt integer, available_at timestamptz, created_at timestamptz,
  owner_id uuid, context_id varchar, place integer, more boolean)
language plpgsql volatile
set search_path = ''
as $$
declare
  c_nobody constant uuid := '00000000-0000-0000-0000-000000000000';
  -- Where more owners wait than fit into one sweep, each sweep begins somewhere else.
  v_from uuid := gen_random_uuid();
  v_owners uuid[];
  v_owner uuid;
  v_each integer;
  v_found integer;
  v_rows integer;
  v_priority bigint;
begin
  with recursive onwards (owner) as (
    (select coalesce(t.owner_id, c_nobody) from public.todolist t
     where t.agent_status = 'pending' and t.agent_type = p_agent_type and coalesce(t.owner_id, c_nobody) >= v_from
     order by coalesce(t.owner_id, c_nobody) limit 1)
    union all
    select (select coalesce(t.owner_id, c_nobody) from public.todolist t
            where t.agent_status = 'pending' and t.agent_type = p_agent_type
              and coalesce(t.owner_id, c_nobody) > o.owner
            order by coalesce(t.owner_id, c_nobody) limit 1)
    from onwards o where o.owner is not null
  ), before (owner) as (
    (select coalesce(t.owner_id, c_nobody) from public.todolist t
     where t.agent_status = 'pending' and t.agent_type = p_agent_type and coalesce(t.owner_id, c_nobody) < v_from
     order by coalesce(t.owner_id, c_nobody) limit 1)
    union all
    select (select coalesce(t.owner_id, c_nobody) from public.todolist t
            where t.agent_status = 'pending' and t.agent_type = p_agent_type
              and coalesce(t.owner_id, c_nobody) > b.owner and coalesce(t.owner_id, c_nobody) < v_from
            order by coalesce(t.owner_id, c_nobody) limit 1)
    from before b where b.owner is not null
  )
  select array_agg(l.owner) into v_owners
  from (
    select a.owner from (select o.owner from onwards o union all select b.owner from before b) a
    where a.owner is not null limit p_limit
  ) l;
  if v_owners is null then
    return;
  end if;

  -- More than an equal share: owners with little to do leave room.
  v_each := least(p_limit, greatest(1, ceil(4.0 * p_limit / cardinality(v_owners))));
  foreach v_owner in array v_owners loop
    v_found := 0;
    v_priority := 2147483648;  -- above every integer
    loop
      select t.priority into v_priority from public.todolist t
      where t.agent_status = 'pending' and t.agent_type = p_agent_type
        and coalesce(t.owner_id, c_nobody) = v_owner and t.priority < v_priority
      order by t.priority desc limit 1;
      exit when not found;
      return query
        select t.id, t.agent_type, t.priority, t.attempt, t.available_at, t.created_at, t.owner_id, t.context_id,
          (v_found + row_number() over (order by t.available_at, t.id))::integer,
          v_found + row_number() over (order by t.available_at, t.id) = v_each
        from public.todolist t
        where t.agent_status = 'pending' and t.agent_type = p_agent_type
          and coalesce(t.owner_id, c_nobody) = v_owner and t.priority = v_priority and t.available_at <= p_now
        order by t.available_at, t.id
        limit v_each - v_found;
      get diagnostics v_rows = row_count;
      v_found := v_found + v_rows;
      exit when v_found >= v_each;
    end loop;
  end loop;
end
$$;

-- Puts back what nobody runs any more. Returns how many rows, about a thousand at most: the next sweep goes on.
create function reactive_worker_private.reclaim(p_worker_id uuid) returns integer
language plpgsql
set search_path = ''
as $$
declare
  v_now timestamptz := public.reactive_worker_now();
  v_alive_since timestamptz;
  v_workers uuid[];
  v_ids uuid[];
  v_count integer := 0;
begin
  -- Only the living call others dead: who was alive when the other's lease ended, or has been again for a third of
  -- that lease, 5 seconds at most. After an outage of the database everybody's lease has run out; whoever reconnects
  -- first must give the others the time of a heartbeat.
  select s.alive_since into v_alive_since
  from public.workers s where s.id = p_worker_id and s.lease_until > v_now;

  -- Skip what is locked: another sweep is at it, or a claim or a heartbeat that was in time.
  select array_agg(w.id) into v_workers
  from (
    select w.id from public.workers w
    where w.lease_until <= v_now and w.id <> p_worker_id
      and (v_alive_since <= w.lease_until
        or v_alive_since <= v_now - least(interval '5 seconds', (w.lease_until - w.heartbeat_at) / 3))
    order by w.id limit 100
    for update skip locked
  ) w;
  if v_workers is not null then
    -- A statement of its own, after the workers were locked: it sees every claim they managed to make. It waits for
    -- a row that is just being finished or cancelled, and then finds out that it need not be put back.
    select array_agg(h.id) into v_ids
    from (
      select t.id from public.todolist t
      where t.agent_status = 'in_progress' and t.worker_id = any (v_workers)
      order by t.id limit 1000
      for update
    ) h;
    v_count := reactive_worker_private.put_back(v_ids, p_lost => true);
    delete from public.workers w
    where w.id = any (v_workers)
      and not exists (select from public.todolist t where t.agent_status = 'in_progress' and t.worker_id = w.id);
    -- More than a thousand rows: the rest comes with the next sweep, and no heartbeat may keep it from that.
    update public.workers w set lease_until = 'epoch' where w.id = any (v_workers);
  end if;

  -- Written by hand: in progress, but with nobody.
  select array_agg(s.id) into v_ids
  from (
    select t.id from public.todolist t
    where t.agent_status = 'in_progress' and t.worker_id is null
    order by t.id limit 1000
    for update skip locked
  ) s;
  if v_ids is not null then
    v_count := v_count + reactive_worker_private.put_back(v_ids, p_lost => false);
  end if;

  -- Held by a worker whose row was deleted by hand. One index probe for each holder, not one for each row.
  with recursive holders (id) as (
    (select t.worker_id from public.todolist t
     where t.agent_status = 'in_progress' and t.worker_id is not null order by t.worker_id limit 1)
    union all
    select (select t.worker_id from public.todolist t
            where t.agent_status = 'in_progress' and t.worker_id > h.id order by t.worker_id limit 1)
    from holders h where h.id is not null
  )
  select array_agg(h.id) into v_workers
  from holders h
  where h.id is not null and not exists (select from public.workers w where w.id = h.id);
  if v_workers is not null then
    select array_agg(s.id) into v_ids
    from (
      select t.id from public.todolist t
      where t.agent_status = 'in_progress' and t.worker_id = any (v_workers)
        -- A claim that has just begun under a worker that has just registered.
        and not exists (select from public.workers w where w.id = t.worker_id)
      order by t.id limit 1000
      for update skip locked
    ) s;
    v_count := v_count + reactive_worker_private.put_back(v_ids, p_lost => true);
  end if;
  return v_count;
end
$$;

-- p_fair_by: null for the best of all, strictly; 'owner_id' for the best of each owner.
create function public.sweep_todos(
  p_worker_id uuid, p_agent_types text[], p_limit integer, p_fair_by text default null
) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  v_now timestamptz := public.reactive_worker_now();
  v_reclaimed integer;
  v_candidates jsonb;
  v_more boolean := false;
  v_next_due_at timestamptz;
begin
  if p_fair_by <> 'owner_id' then
    raise exception using errcode = '22023', message = format('p_fair_by must be owner_id or null, got %s', p_fair_by);
  end if;
  if p_agent_types is null then
    raise exception using errcode = '22023', message = 'p_agent_types must not be null';
  end if;
  if p_limit is null or p_limit not between 1 and 10000 then
    raise exception using errcode = '22023',
      message = format('p_limit must be between 1 and 10000, got %s', coalesce(p_limit::text, 'null'));
  end if;

  v_reclaimed := reactive_worker_private.reclaim(p_worker_id);

  if p_fair_by is null then
    select jsonb_agg(to_jsonb(c) order by c.priority desc, c.available_at, c.id) into v_candidates
    from (
      select d.* from (select distinct y.agent_type from unnest(p_agent_types) y (agent_type)) y
      cross join lateral reactive_worker_private.due_todos(y.agent_type, v_now, p_limit) d
      order by d.priority desc, d.available_at, d.id
      limit p_limit
    ) c;
  else
    with due as materialized (
      select d.* from (select distinct y.agent_type from unnest(p_agent_types) y (agent_type)) y
      cross join lateral reactive_worker_private.due_todos_by_owner(y.agent_type, v_now, p_limit) d
    ), best as (
      select d.* from due d order by d.place, d.priority desc, d.available_at, d.id limit p_limit
    )
    select (select jsonb_agg(to_jsonb(b) - 'place' - 'more' order by b.place, b.priority desc, b.available_at, b.id)
            from best b),
      coalesce((select bool_or(d.more) from due d), false)
    into v_candidates, v_more;
  end if;

  select min(f.available_at) into v_next_due_at
  from (select distinct y.agent_type from unnest(p_agent_types) y (agent_type)) y
  cross join lateral (
    select t.available_at from public.todolist t
    where t.agent_status = 'pending' and t.agent_type = y.agent_type
      and t.available_at > v_now and t.available_at < 'infinity'
    order by t.available_at limit 1
  ) f;

  return jsonb_build_object(
    'now', v_now, 'next_due_at', v_next_due_at, 'reclaimed', v_reclaimed,
    'full', v_more or coalesce(jsonb_array_length(v_candidates), 0) >= p_limit,
    'candidates', coalesce(v_candidates, '[]'));
end
$$;

create function public.claim_todos(p_worker_id uuid, p_ids uuid[], p_want integer) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  v_now timestamptz := public.reactive_worker_now();
  v_ids uuid[];
  v_claimed jsonb;
  v_gone jsonb;
  v_attempts jsonb;
begin
  if p_ids is null then
    raise exception using errcode = '22023', message = 'p_ids must not be null';
  end if;
  if p_want is null or p_want < 0 then
    raise exception using errcode = '22023',
      message = format('p_want must be at least 0, got %s', coalesce(p_want::text, 'null'));
  end if;

  -- The share lock lets heartbeats pass (they change no key), and makes a sweep that gives this worker up skip it, or
  -- makes this claim wait and find the worker gone. No task can be claimed for a worker that is being swept.
  perform 1 from public.workers w where w.id = p_worker_id and w.lease_until > v_now for key share;
  if not found then
    raise exception using errcode = 'RW001',
      message = format('worker %s is unknown or its lease ran out: register again', p_worker_id);
  end if;

  -- In the order given, until there are enough, locking no more than that. Rows other claims hold are skipped, not
  -- waited for: the fleet never queues up behind one row. A lateral subquery that locks is always evaluated once
  -- for each id, by the primary key; coalesce hides the status from the planner, which would otherwise be free to
  -- read the whole pending index for each id when its statistics say that hardly anything is waiting.
  select array_agg(h.id order by h.n) into v_ids
  from (
    select t.id, o.n
    from (select u.id, min(u.n) as n from unnest(p_ids) with ordinality u (id, n) group by u.id order by n) o
    cross join lateral (
      select t.id from public.todolist t
      where t.id = o.id and coalesce(t.agent_status, '') = 'pending' and t.available_at <= v_now
      for update skip locked
    ) t
    limit p_want
  ) h;

  with marked as materialized (
    -- The rows are locked, so the number stays free.
    select u.id, u.n, (select coalesce(max(e.seq), 0) + 1 from public.events e where e.todolist_id = u.id) as seq
    from unnest(v_ids) with ordinality u (id, n)
  ), claimed as (
    update public.todolist t
    set agent_status = 'in_progress', attempt = t.attempt + 1, worker_id = p_worker_id,
      started_at = coalesce(t.started_at, v_now), completed_at = null,
      context_id = coalesce(t.context_id, t.id::text), task_state = 'TASK_STATE_WORKING'
    from marked m
    where t.id = m.id
    returning m.n, m.seq, t.id, t.attempt, t.context_id, to_jsonb(t) || jsonb_build_object('seq', m.seq) as row
  ), started as (
    insert into public.events
      (todolist_id, seq, event_type, event_data, context_id, task_id, created_at, attempt, worker_id)
    select c.id, c.seq, 'task_started',
      reactive_worker_private.status_update(c.id, c.context_id, 'TASK_STATE_WORKING', v_now),
      c.context_id, c.id::text, v_now, c.attempt, p_worker_id
    from claimed c
  )
  select jsonb_agg(c.row order by c.n) into v_claimed from claimed c;

  -- With the attempt each is at, null for a row that is not there: a worker that was told of a row before the
  -- transaction which made it runnable can be seen here recognises by it that the row is not gone but to come.
  select jsonb_agg(u.id), jsonb_object_agg(u.id, t.attempt) into v_gone, v_attempts
  from (select distinct u.id from unnest(p_ids) u (id) where u.id <> all (coalesce(v_ids, '{}'))) u
  left join public.todolist t on t.id = u.id
  where t.id is null or t.agent_status <> 'pending';

  return jsonb_build_object('claimed', coalesce(v_claimed, '[]'), 'gone', coalesce(v_gone, '[]'),
    'attempts', coalesce(v_attempts, '{}'));
end
$$;

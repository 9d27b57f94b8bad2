-- From pending to in_progress: who gets it.

-- Locks the first p_want of these that this worker may have now, in the order given, and no more than that. Rows other
-- claims hold are skipped, not waited for: the fleet never queues up behind one row. A lateral subquery that locks is
-- always evaluated once for each id, by the primary key; coalesce hides the status from the planner, which would
-- otherwise be free to read the whole pending index for each id when its statistics say that hardly anything is waiting.
-- A row that still bears this worker's id was set back to pending by hand, and the worker has not stopped it yet.
create function reactive_worker_private.take(p_worker_id uuid, p_types text[], p_ids uuid[], p_want integer)
returns uuid[]
language plpgsql
set search_path = ''
as $$
declare
  v_now timestamptz := public.reactive_worker_now();
begin
  return (
    select array_agg(h.id order by h.n)
    from (
      select t.id, o.n
      from (select u.id, min(u.n) as n from unnest(p_ids) with ordinality u (id, n) group by u.id order by n) o
      cross join lateral (
        select t.id from public.todolist t
        where t.id = o.id and coalesce(t.agent_status, '') = 'pending' and t.available_at <= v_now
          and t.agent_type = any (p_types) and t.worker_id is distinct from p_worker_id
        for update skip locked
      ) t
      limit p_want
    ) h);
end
$$;

-- As many of these locked tasks, in their order, as fit into p_bytes; always one. Most are known to be small without
-- being read: what lies outside its row, or is compressed, is measured.
create function reactive_worker_private.that_fit(p_ids uuid[], p_bytes bigint) returns uuid[]
language plpgsql
set search_path = ''
as $$
declare
  v_fit uuid[] := '{}';
  v_bytes bigint := 0;
  v_size bigint;
  v_id uuid;
begin
  if p_ids is null or cardinality(p_ids) = 1 or not exists (
    select from public.todolist t
    where t.id = any (p_ids) and (octet_length(t.prompt) > 10000 or pg_column_size(t.input_data) > 1000
      or pg_column_size(t.agent_output) > 1000 or pg_column_size(t.error) > 1000)
  ) and cardinality(p_ids) * 20000 <= p_bytes then
    return p_ids;
  end if;
  foreach v_id in array p_ids loop
    select 2000 + octet_length(t.prompt) + coalesce(octet_length(t.input_data::text), 0)
      + coalesce(octet_length(t.agent_output::text), 0) + coalesce(octet_length(t.error::text), 0)
    into v_size
    from public.todolist t where t.id = v_id;
    v_bytes := v_bytes + v_size;
    exit when v_bytes > p_bytes and cardinality(v_fit) > 0;
    v_fit := v_fit || v_id;
  end loop;
  return v_fit;
end
$$;

-- These locked tasks begin to run: status, attempt and log. Returns the rows in the order of p_ids.
create function reactive_worker_private.begin_runs(p_worker_id uuid, p_ids uuid[]) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  v_now timestamptz := public.reactive_worker_now();
  v_rows jsonb;
begin
  with marked as materialized (
    -- The rows are locked, so the number stays free.
    select u.id, u.n, (select coalesce(max(e.seq), 0) + 1 from public.events e where e.todolist_id = u.id) as seq
    from unnest(p_ids) with ordinality u (id, n)
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
  select coalesce(jsonb_agg(c.row order by c.n), '[]') into v_rows from claimed c;
  return v_rows;
end
$$;

-- The same, or each by itself when that is refused. A claim that is refused is a failure of the task: it is tried again
-- later, as often as its budget lasts, then it is failed with the reason.
create function reactive_worker_private.begin_each(
  p_worker_id uuid, p_ids uuid[], out claimed jsonb, out done uuid[], out refused jsonb
)
language plpgsql
set search_path = ''
as $$
declare
  v_reason text;
  v_state text;
  v_id uuid;
begin
  claimed := '[]';
  done := '{}';
  refused := '[]';
  if p_ids is null then
    return;
  end if;
  begin
    claimed := reactive_worker_private.begin_runs(p_worker_id, p_ids);
    done := p_ids;
    return;
  exception when others then
    if reactive_worker_private.is_weather(sqlstate) then
      raise;
    end if;
  end;
  foreach v_id in array p_ids loop
    begin
      claimed := claimed || reactive_worker_private.begin_runs(p_worker_id, array[v_id]);
      done := done || v_id;
    exception when others then
      v_reason := sqlerrm;
      v_state := sqlstate;
      if reactive_worker_private.is_weather(v_state) then
        raise;
      elsif not reactive_worker_private.is_busy(v_state) then
        refused := refused || reactive_worker_private.refuse_run(v_id, v_reason);
      end if;
    end;
  end loop;
end
$$;

-- A task that cannot begin, or whose end was refused once too often: a failure. Where not even that can be written, it is
-- left alone for a while. Returns [{"id", "attempt", "agent_status", "reason"}].
create function reactive_worker_private.refuse_run(p_id uuid, p_reason text) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  v_status text := reactive_worker_private.count_failure(p_id, reactive_worker_private.refusal(p_reason));
  v_todo public.todolist;
begin
  select t.* into v_todo from public.todolist t where t.id = p_id;
  if v_status is null then
    perform reactive_worker_private.note_refusal(p_id, v_todo.attempt, p_reason);
  end if;
  return jsonb_build_array(jsonb_build_object('id', p_id, 'attempt', v_todo.attempt,
    'agent_status', v_todo.agent_status, 'reason', p_reason));
end
$$;

-- What a worker may have while there are suspects (see SUSPECTS in the tables' file), in the order offered.
--   taken   locked, to be claimed; null for the first `want` of `ids`
--   alone   a suspect beside which nothing more is claimed now, because it runs or because it is made room for
create function reactive_worker_private.quarantine(
  p_worker_id uuid, p_types text[], p_ids uuid[], p_want integer,
  out alone uuid, out taken uuid[], out ids uuid[], out want integer
)
language plpgsql
set search_path = ''
as $$
declare
  v_now timestamptz := public.reactive_worker_now();
  v_held integer;
  v_company integer;
  v_suspects uuid[];
  v_reserved uuid;
  v_fits uuid[] := '{}';
  v_one record;
begin
  ids := '{}';
  want := p_want;
  select count(*), min(s.company), (array_agg(s.todolist_id order by s.company))[1] into v_held, v_company, alone
  from public.todolist t left join reactive_worker_private.suspects s on s.todolist_id = t.id
  where t.agent_status = 'in_progress' and t.worker_id = p_worker_id;
  if v_company is not null then
    want := greatest(0, least(p_want, v_company - v_held));
    if v_company <= v_held then
      return;
    end if;
    alone := null;
  end if;

  v_suspects := array(
    select s.todolist_id from unnest(p_ids) with ordinality u (id, n)
    join reactive_worker_private.suspects s on s.todolist_id = u.id
    join public.todolist t on t.id = s.todolist_id
    where t.agent_status = 'pending' and t.available_at <= v_now and t.agent_type = any (p_types)
      and t.worker_id is distinct from p_worker_id
    order by s.reserved_by is distinct from p_worker_id, u.n);
  select s.todolist_id into v_reserved from reactive_worker_private.suspects s
  where s.reserved_by = p_worker_id and s.todolist_id = any (v_suspects) limit 1;
  -- Taken by somebody else, ended, or not offered any more: no reason to stand idle.
  update reactive_worker_private.suspects s set reserved_by = null
  where s.reserved_by = p_worker_id and s.todolist_id is distinct from v_reserved;
  ids := array(select u.id from unnest(p_ids) with ordinality u (id, n) where u.id <> all (v_suspects) order by u.n);
  if cardinality(v_suspects) = 0 then
    return;
  end if;
  if v_reserved is null then
    -- Better ones go first, as anywhere.
    taken := reactive_worker_private.take(
      p_worker_id, p_types, p_ids[:array_position(p_ids, v_suspects[1]) - 1], want);
    if taken is not null then
      return;
    end if;
  end if;
  -- As many suspects as may be together.
  for v_one in
    select s.todolist_id as id, s.company from unnest(v_suspects) with ordinality u (id, n)
    join reactive_worker_private.suspects s on s.todolist_id = u.id order by u.n
  loop
    exit when cardinality(v_fits) >= want;
    if v_held + cardinality(v_fits) < least(v_company, v_one.company) then
      v_fits := v_fits || v_one.id;
      v_company := least(v_company, v_one.company);
    end if;
  end loop;
  if cardinality(v_fits) > 0 then
    taken := reactive_worker_private.take(p_worker_id, p_types, v_fits, want);
    update reactive_worker_private.suspects s set reserved_by = null
    where s.todolist_id = any (taken) and s.reserved_by is not null;
    if v_held + cardinality(taken) >= v_company then
      alone := taken[1];
    end if;
  elsif want < 1 then
    return;
  elsif v_reserved is not null then
    alone := v_reserved;
  else
    -- The first for which no other worker makes room. No more than half of the living do.
    select s.todolist_id into alone
    from unnest(v_suspects) with ordinality u (id, n)
    join reactive_worker_private.suspects s on s.todolist_id = u.id
    where not exists (select from public.workers w where w.id = s.reserved_by and w.lease_until > v_now)
      and (select count(*) from reactive_worker_private.suspects r
           join public.workers w on w.id = r.reserved_by and w.lease_until > v_now)
        < greatest(1, (select count(*) / 2 from public.workers w where w.lease_until > v_now))
    order by u.n limit 1
    for update of s skip locked;
    update reactive_worker_private.suspects s set reserved_by = p_worker_id where s.todolist_id = alone;
  end if;
end
$$;

-- p_max_bytes: how large the answer may be; one row always comes, however large.
--   claimed     the rows, whole, in the order offered
--   gone        ids that need not be offered any more; `attempts` says where each is, null for a row that is not there
--   busy        ids that somebody else has locked, or that this worker has not stopped yet: later
--   refused     [{"id", "attempt", "agent_status", "reason"}]: they could not begin, which counted as a failure; gone
--   quarantine  the suspect this worker runs, or makes room for: it gets nothing more until fewer are in flight
create function public.claim_todos(
  p_worker_id uuid, p_ids uuid[], p_want integer, p_max_bytes bigint default 8388608
) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  v_now timestamptz := public.reactive_worker_now();
  v_types text[];
  v_offered uuid[] := p_ids;
  v_taken uuid[];
  v_fit uuid[];
  v_want integer := p_want;
  v_alone uuid;
  v_begun record;
  v_refused jsonb := '[]';
  v_refused_ids uuid[] := '{}';
  v_gone jsonb;
  v_attempts jsonb;
  v_busy jsonb;
begin
  if p_ids is null then
    raise exception using errcode = '22023', message = 'p_ids must not be null';
  end if;
  if p_want is null or p_want < 0 then
    raise exception using errcode = '22023',
      message = format('p_want must be at least 0, got %s', coalesce(p_want::text, 'null'));
  end if;

  -- The share lock lets heartbeats pass (they change no key), and makes a reclaim that gives this worker up skip it, or
  -- makes this claim wait and find the worker gone. No task can be claimed for a worker that is being put to rest.
  select w.agent_types into v_types
  from public.workers w where w.id = p_worker_id and w.lease_until > v_now for key share;
  if not found then
    raise exception using errcode = 'RW001',
      message = format('worker %s is unknown or its lease ran out: register again', p_worker_id);
  end if;
  v_types := reactive_worker_private.types_of(p_worker_id, v_types);

  -- Both tables are empty but in bad times.
  if exists (select from reactive_worker_private.refusals) then
    select coalesce(jsonb_agg(jsonb_build_object('id', t.id, 'attempt', t.attempt, 'agent_status', t.agent_status,
      'reason', r.reason)), '[]'), coalesce(array_agg(t.id), '{}')
    into v_refused, v_refused_ids
    from reactive_worker_private.refusals r join public.todolist t on t.id = r.todolist_id
    where r.todolist_id = any (p_ids) and r.next_at > v_now and t.agent_status = 'pending';
    v_offered := array(
      select u.id from unnest(p_ids) with ordinality u (id, n) where u.id <> all (v_refused_ids) order by u.n);
  end if;
  if exists (select from reactive_worker_private.suspects) then
    select q.alone, q.taken, q.ids, q.want into v_alone, v_taken, v_offered, v_want
    from reactive_worker_private.quarantine(p_worker_id, v_types, v_offered, p_want) q;
  end if;
  if v_alone is null and v_taken is null then
    v_taken := reactive_worker_private.take(p_worker_id, v_types, v_offered, v_want);
  end if;
  v_fit := reactive_worker_private.that_fit(v_taken, coalesce(p_max_bytes, 8388608));
  v_begun := reactive_worker_private.begin_each(p_worker_id, v_fit);
  if v_begun.refused <> '[]' then
    v_refused := v_refused || v_begun.refused;
    v_refused_ids := v_refused_ids || array(select (r ->> 'id')::uuid from jsonb_array_elements(v_begun.refused) r);
  end if;

  -- With the attempt each is at, null for a row that is not there: a worker that was told of a row before the
  -- transaction which made it runnable can be seen here recognises by it that the row is not gone but to come.
  select jsonb_agg(u.id) filter (where u.gone), jsonb_object_agg(u.id, u.attempt) filter (where u.gone),
    -- Could have been taken, and there was room for it: somebody has locked it.
    jsonb_agg(u.id) filter (where not u.gone and (u.id = any (v_fit) or u.due and v_alone is null
      and coalesce(cardinality(v_taken), 0) < v_want and u.id <> all (coalesce(v_taken, '{}'))))
  into v_gone, v_attempts, v_busy
  from (
    select i.id, t.attempt, t.available_at <= v_now and i.id = any (v_offered) as due,
      t.id is null or t.agent_status <> 'pending' or t.agent_type <> all (v_types) or t.id = any (v_refused_ids) as gone
    from (select distinct i.id from unnest(p_ids) i (id) where i.id <> all (v_begun.done)) i
    left join public.todolist t on t.id = i.id
  ) u;

  return jsonb_build_object('claimed', v_begun.claimed, 'gone', coalesce(v_gone, '[]'),
    'attempts', coalesce(v_attempts, '{}'), 'busy', coalesce(v_busy, '[]'), 'refused', v_refused,
    'quarantine', v_alone);
end
$$;

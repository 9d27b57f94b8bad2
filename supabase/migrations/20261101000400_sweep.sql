-- What is due: the candidates of workers. Reads index entries of what is due now and a bounded number of others, whatever
-- is waiting, scheduled, locked, and whoever owns it. Changes nothing.

-- How many priorities (and how many of one owner) in a row may have nothing due before a sweep stops looking for better
-- ones. Signed-in users have 201 priorities to choose from (see limits), so that theirs hide nothing; a back end that
-- schedules rows of more priorities than that for later makes sweeps offer the oldest due ones besides.
create function reactive_worker_private.empty_priorities() returns integer
language plpgsql immutable
set search_path = ''
as $$ begin return 256; end $$;

-- The best due tasks of one agent type, about p_limit: highest priority first, then by age; without p_except. Reads about
-- as many index entries as it returns, at most two for each priority it passes, and as many again by age. Some may come
-- twice.
create function reactive_worker_private.due_todos(
  p_agent_type text, p_now timestamptz, p_limit integer, p_except uuid[]
)
returns table (
  id uuid, agent_type varchar, priority integer, attempt integer, available_at timestamptz, created_at timestamptz,
  owner_id uuid, context_id varchar)
language plpgsql stable
set search_path = ''
as $$
declare
  c_some constant integer := p_limit + cardinality(p_except);
  c_steps constant integer := c_some + reactive_worker_private.empty_priorities();
  v_due integer;
  v_rows integer;
begin
  -- Few are due, perhaps beside millions scheduled for later: take them all by their due time. The index by priority
  -- would have to step over every later one.
  select count(*) into v_due from (
    select from public.todolist t
    where t.agent_status = 'pending' and t.agent_type = p_agent_type and t.available_at <= p_now
    limit c_some + 1
  ) d;
  if v_due > c_some then
    -- Many are due: from priority to priority, and within each from the oldest on, until there are enough. Each priority
    -- is one step down the index, whatever it holds; the recursion goes on only as long as the limit asks for more.
    return query
      with recursive steps (priority, n) as (
        (select t.priority, 1 from public.todolist t
         where t.agent_status = 'pending' and t.agent_type = p_agent_type
         order by t.priority desc limit 1)
        union all
        select (select t.priority from public.todolist t
                where t.agent_status = 'pending' and t.agent_type = p_agent_type and t.priority < s.priority
                order by t.priority desc limit 1), s.n + 1
        from steps s where s.priority is not null and s.n < c_steps
      )
      select d.* from steps s
      cross join lateral (
        select t.id, t.agent_type, t.priority, t.attempt, t.available_at, t.created_at, t.owner_id, t.context_id
        from public.todolist t
        where t.agent_status = 'pending' and t.agent_type = p_agent_type and t.priority = s.priority
          and t.available_at <= p_now and t.id <> all (p_except)
        order by t.available_at, t.id
        limit p_limit
      ) d
      limit p_limit;
    get diagnostics v_rows = row_count;
    if v_rows = p_limit then
      return;
    end if;
    -- Too many priorities with nothing due: the oldest of what is due besides.
  end if;
  return query
    select t.id, t.agent_type, t.priority, t.attempt, t.available_at, t.created_at, t.owner_id, t.context_id
    from public.todolist t
    where t.agent_status = 'pending' and t.agent_type = p_agent_type and t.available_at <= p_now
      and t.id <> all (p_except)
    order by t.available_at
    limit c_some;
end
$$;

-- The same, fairly: of each owner the best, so that ten thousand tasks of one do not hide ten of another. Tasks without an
-- owner (a back end's own) are those of the zero uuid. Reads one index entry for each owner, p_limit owners at most, and
-- of each about four times their share.
create function reactive_worker_private.due_todos_by_owner(
  p_agent_type text, p_now timestamptz, p_limit integer, p_except uuid[]
)
returns table (
  id uuid, agent_type varchar, priority integer, attempt integer, available_at timestamptz, created_at timestamptz,
  owner_id uuid, context_id varchar)
language plpgsql volatile
set search_path = ''
as $$
declare
  c_nobody constant uuid := '00000000-0000-0000-0000-000000000000';
  c_some constant integer := p_limit + cardinality(p_except);
  -- Priorities of one owner that may have nothing due: he hides but what is his own.
  c_empty constant integer := 3;
  v_due integer;
  v_rows integer;
  -- Where more owners wait than fit into one sweep, each sweep begins somewhere else.
  v_from uuid := gen_random_uuid();
  v_owners uuid[];
  v_each integer;
begin
  select count(*) into v_due from (
    select from public.todolist t
    where t.agent_status = 'pending' and t.agent_type = p_agent_type and t.available_at <= p_now
    limit c_some + 1
  ) d;
  if v_due > c_some then
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
    -- More than an equal share: owners with little to do leave room.
    v_each := least(p_limit, greatest(1, ceil(4.0 * p_limit / cardinality(v_owners))));
    return query
      select b.* from unnest(v_owners) w (owner)
      cross join lateral (
        with recursive steps (priority, n) as (
          (select t.priority, 1 from public.todolist t
           where t.agent_status = 'pending' and t.agent_type = p_agent_type and coalesce(t.owner_id, c_nobody) = w.owner
           order by t.priority desc limit 1)
          union all
          select (select t.priority from public.todolist t
                  where t.agent_status = 'pending' and t.agent_type = p_agent_type
                    and coalesce(t.owner_id, c_nobody) = w.owner and t.priority < s.priority
                  order by t.priority desc limit 1), s.n + 1
          from steps s where s.priority is not null and s.n < v_each + c_empty
        )
        select d.* from steps s
        cross join lateral (
          select t.id, t.agent_type, t.priority, t.attempt, t.available_at, t.created_at, t.owner_id, t.context_id
          from public.todolist t
          where t.agent_status = 'pending' and t.agent_type = p_agent_type and coalesce(t.owner_id, c_nobody) = w.owner
            and t.priority = s.priority and t.available_at <= p_now and t.id <> all (p_except)
          order by t.available_at, t.id
          limit v_each
        ) d
        limit v_each
      ) b;
    get diagnostics v_rows = row_count;
    if v_rows >= p_limit then
      return;
    end if;
    -- Many of the owners looked at have nothing due: the oldest of what is due besides.
  end if;
  return query
    select t.id, t.agent_type, t.priority, t.attempt, t.available_at, t.created_at, t.owner_id, t.context_id
    from public.todolist t
    where t.agent_status = 'pending' and t.agent_type = p_agent_type and t.available_at <= p_now
      and t.id <> all (p_except)
    order by t.available_at
    limit c_some;
end
$$;

-- p_fair_by: null for the best of all, strictly; 'owner_id' for the best of each owner.
-- p_except: what the worker has just found locked or refused, so that it does not hide what comes after it.
create function public.sweep_todos(
  p_worker_id uuid, p_agent_types text[], p_limit integer, p_fair_by text default null, p_except uuid[] default '{}'
) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  v_now timestamptz := public.reactive_worker_now();
  v_types text[];
  v_except uuid[] := coalesce(p_except, '{}');
  v_candidates jsonb;
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
  if cardinality(v_except) > 10000 then
    raise exception using errcode = '22023',
      message = format('p_except must name at most 10000 tasks, got %s', cardinality(v_except));
  end if;
  v_types := reactive_worker_private.types_of(p_worker_id, p_agent_types);
  -- What refused a claim and could not even be put off.
  v_except := v_except || array(
    select r.todolist_id from reactive_worker_private.refusals r where r.next_at > v_now limit 1000);

  if p_fair_by is null then
    select jsonb_agg(to_jsonb(c) order by c.priority desc, c.available_at, c.id) into v_candidates
    from (
      select distinct d.* from unnest(v_types) y (agent_type)
      cross join lateral reactive_worker_private.due_todos(y.agent_type, v_now, p_limit, v_except) d
      order by d.priority desc, d.available_at, d.id
      limit p_limit
    ) c;
  else
    -- In rounds: each owner's best, then each owner's second.
    select jsonb_agg(to_jsonb(b) - 'place' order by b.place, b.priority desc, b.available_at, b.id) into v_candidates
    from (
      select o.*, row_number() over (
        partition by o.agent_type, o.owner_id order by o.priority desc, o.available_at, o.id) as place
      from (
        select distinct d.* from unnest(v_types) y (agent_type)
        cross join lateral reactive_worker_private.due_todos_by_owner(y.agent_type, v_now, p_limit, v_except) d
      ) o
      order by place, o.priority desc, o.available_at, o.id
      limit p_limit
    ) b;
  end if;

  select min(f.available_at) into v_next_due_at
  from unnest(v_types) y (agent_type)
  cross join lateral (
    select t.available_at from public.todolist t
    where t.agent_status = 'pending' and t.agent_type = y.agent_type and t.available_at > v_now
    order by t.available_at limit 1
  ) f;

  return jsonb_build_object(
    'now', v_now, 'next_due_at', v_next_due_at,
    'full', coalesce(jsonb_array_length(v_candidates), 0) >= p_limit,
    'candidates', coalesce(v_candidates, '[]'));
end
$$;

-- The agent types a worker may ask for, each once: those it registered, and its token names.
create function reactive_worker_private.types_of(p_worker_id uuid, p_agent_types text[]) returns text[]
language plpgsql stable
set search_path = ''
as $$
declare
  v_registered text[];
  v_types text[];
begin
  select w.agent_types into v_registered from public.workers w where w.id = p_worker_id;
  if not found then
    raise exception using errcode = 'RW001',
      message = format('worker %s is unknown or its lease ran out: register again', coalesce(p_worker_id::text, 'null'));
  end if;
  select array_agg(distinct y) into v_types
  from unnest(p_agent_types) y
  where y = any (v_registered)
    and y = any (coalesce(reactive_worker_private.token_types(), v_registered));
  return coalesce(v_types, '{}');
end
$$;

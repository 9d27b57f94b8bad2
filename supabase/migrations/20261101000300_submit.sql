-- Submitting tasks: many rows in one call, each key only once.

-- What is wrong with one row of submit_todos; null when nothing is. p_user: for a signed-in user, who is the owner of
-- what they submit and chooses no ids: whoever keeps something by the id of a task (a thread, a session, a file) must
-- not find it opened by somebody who took the id of a deleted one.
create function reactive_worker_private.submit_problem(p_row jsonb, p_user boolean) returns text
language plpgsql immutable
set search_path = ''
as $$
declare
  v_unknown text;
begin
  if jsonb_typeof(p_row) <> 'object' then
    return 'must be an object';
  end if;
  select string_agg(k, ', ' order by k) into v_unknown from jsonb_object_keys(p_row) k
  where k not in ('id', 'agent_type', 'prompt', 'input_data', 'priority', 'delay_seconds', 'available_at',
    'idempotency_key', 'context_id', 'max_failures', 'timeout_seconds', 'owner_id');
  if v_unknown is not null then
    return format('unknown keys: %s', v_unknown);
  end if;
  p_row := jsonb_strip_nulls(p_row - 'input_data');
  if coalesce(jsonb_typeof(p_row -> 'agent_type') <> 'string', true)
    or char_length(p_row ->> 'agent_type') not between 1 and 100 then
    return 'agent_type must be a text of 1 to 100 characters';
  elsif coalesce(jsonb_typeof(p_row -> 'prompt') <> 'string', true) then
    return 'prompt must be a text';
  elsif p_row ? 'id' and not reactive_worker_private.is_uuid(p_row ->> 'id') then
    return 'id must be a uuid';
  elsif p_row ? 'id' and p_user then
    return 'id is made by the database; only a back end (the secret key) may choose it';
  elsif p_row ? 'owner_id' and not reactive_worker_private.is_uuid(p_row ->> 'owner_id') then
    return 'owner_id must be a uuid';
  elsif p_row ? 'owner_id' and p_user then
    return 'owner_id is who is signed in; only a back end (the secret key) may choose it';
  elsif p_row ? 'priority'
    and not reactive_worker_private.is_whole(p_row -> 'priority', -2147483648, 2147483647) then
    return 'priority must be a whole number between -2147483648 and 2147483647';
  elsif p_row ? 'delay_seconds' and p_row ? 'available_at' then
    return 'give delay_seconds or available_at, not both';
  elsif p_row ? 'delay_seconds' and (jsonb_typeof(p_row -> 'delay_seconds') <> 'number'
    or (p_row ->> 'delay_seconds')::numeric not between 0 and 3153600000) then
    return 'delay_seconds must be a number between 0 and 3153600000 (a hundred years)';
  elsif p_row ? 'available_at' and jsonb_typeof(p_row -> 'available_at') <> 'string' then
    return 'available_at must be a timestamp';
  elsif p_row ? 'idempotency_key' and (jsonb_typeof(p_row -> 'idempotency_key') <> 'string'
    or char_length(p_row ->> 'idempotency_key') not between 1 and 255) then
    return 'idempotency_key must be a text of 1 to 255 characters';
  elsif p_row ? 'context_id' and (jsonb_typeof(p_row -> 'context_id') <> 'string'
    or char_length(p_row ->> 'context_id') not between 1 and 255) then
    return 'context_id must be a text of 1 to 255 characters';
  elsif p_row ? 'max_failures' and not reactive_worker_private.is_whole(p_row -> 'max_failures', 1, 2147483647) then
    return 'max_failures must be a whole number of at least 1';
  elsif p_row ? 'timeout_seconds'
    and not reactive_worker_private.is_whole(p_row -> 'timeout_seconds', 1, 2147483647) then
    return 'timeout_seconds must be a whole number of at least 1';
  end if;
  if p_row ? 'available_at' then
    begin
      if not isfinite((p_row ->> 'available_at')::timestamptz) then
        return 'available_at must be a finite timestamp';
      end if;
    exception when invalid_datetime_format or datetime_field_overflow or invalid_parameter_value then
      return format('available_at must be a timestamp, got %s', left(p_row ->> 'available_at', 100));
    end;
  end if;
  return null;
end
$$;

-- Inserts a back end's rows, which have numbers; returns [{"id", "created"}] in their order.
create function reactive_worker_private.insert_todos(p_rows jsonb, p_now timestamptz, p_owner uuid) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  v_created uuid[];
  v_answer jsonb;
begin
  -- Ids are made here, so that what was inserted can be told from what was there.
  select jsonb_agg(jsonb_build_object('id', public.reactive_worker_uuid()) || r.value order by r.n) into p_rows
  from jsonb_array_elements(p_rows) with ordinality r (value, n);
  for v_try in 1..5 loop
    -- In the order of the keys: two batches that share keys then wait for each other, but never in a circle. A
    -- microsecond apart: rows of one batch are of one age, and would otherwise start in the order of their random
    -- ids.
    with created as (
      insert into public.todolist (id, agent_type, prompt, input_data, priority, available_at, idempotency_key,
        context_id, max_failures, timeout_seconds, owner_id)
      select r.id, r.agent_type, r.prompt, nullif(r.input_data, 'null'), coalesce(r.priority, 0),
        coalesce(r.available_at,
          p_now + make_interval(secs => coalesce(r.delay_seconds, 0)) + (r.n - 1) * interval '1 microsecond'),
        r.idempotency_key, r.context_id, coalesce(r.max_failures, 3), r.timeout_seconds,
        coalesce(r.owner_id, p_owner)
      from jsonb_to_recordset(p_rows) as r (n bigint, id uuid, agent_type text, prompt text, input_data jsonb,
        priority integer, delay_seconds double precision, available_at timestamptz, idempotency_key text,
        context_id text, max_failures integer, timeout_seconds integer, owner_id uuid)
      where r.id <> all (coalesce(v_created, '{}'))
      order by r.agent_type, r.idempotency_key, r.n
      on conflict (agent_type, idempotency_key, owner_id) where idempotency_key is not null do nothing
      returning id
    )
    select coalesce(v_created, '{}') || coalesce(array_agg(c.id), '{}') into v_created from created c;

    -- A new statement, so it sees who was faster.
    select jsonb_agg(jsonb_build_object('id', coalesce(f.id, t.id), 'created', f.id is not null) order by r.n)
    into v_answer
    from jsonb_to_recordset(p_rows) as r (n bigint, id uuid, agent_type text, idempotency_key text, owner_id uuid)
    left join unnest(v_created) f (id) on f.id = r.id
    left join lateral (
      select t.id from public.todolist t
      where f.id is null and t.agent_type = r.agent_type and t.idempotency_key = r.idempotency_key
        and t.owner_id is not distinct from coalesce(r.owner_id, p_owner)
    ) t on true;

    if not coalesce(jsonb_path_exists(v_answer, '$[*] ? (@.id == null)'), false) then
      return coalesce(v_answer, '[]');
    end if;
    -- The faster one was deleted in between: then the key is free again.
  end loop;
  -- Deleted five times in a row? No: a policy of the project's own hides it from its owner.
  raise exception using errcode = 'PT409', message = 'an idempotency_key is taken by a task you cannot see';
end
$$;

-- The same for a signed-in user, who has no right to choose ids. One at a time: only so it is known which id is whose.
create function reactive_worker_private.insert_own_todos(p_rows jsonb, p_now timestamptz, p_owner uuid) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  v_row record;
  v_id uuid;
  v_created boolean;
  v_answers jsonb[] := '{}';
begin
  for v_row in
    select * from jsonb_to_recordset(p_rows) as r (n bigint, agent_type text, prompt text, input_data jsonb,
      priority integer, delay_seconds double precision, available_at timestamptz, idempotency_key text,
      context_id text, max_failures integer, timeout_seconds integer)
    order by r.agent_type, r.idempotency_key, r.n
  loop
    for v_try in 1..5 loop
      insert into public.todolist (agent_type, prompt, input_data, priority, available_at, idempotency_key,
        context_id, max_failures, timeout_seconds)
      values (v_row.agent_type, v_row.prompt, nullif(v_row.input_data, 'null'), coalesce(v_row.priority, 0),
        coalesce(v_row.available_at, p_now + make_interval(secs => coalesce(v_row.delay_seconds, 0))
          + (v_row.n - 1) * interval '1 microsecond'),
        v_row.idempotency_key, v_row.context_id, coalesce(v_row.max_failures, 3), v_row.timeout_seconds)
      on conflict (agent_type, idempotency_key, owner_id) where idempotency_key is not null do nothing
      returning id into v_id;
      v_created := found;
      exit when v_created;
      select t.id into v_id from public.todolist t
      where t.agent_type = v_row.agent_type and t.idempotency_key = v_row.idempotency_key
        and t.owner_id is not distinct from p_owner;
      exit when found;
    end loop;
    if v_id is null then
      raise exception using errcode = 'PT409', message = 'an idempotency_key is taken by a task you cannot see';
    end if;
    v_answers[v_row.n] := jsonb_build_object('id', v_id, 'created', v_created);
  end loop;
  return to_jsonb(v_answers);
end
$$;

create function public.submit_todos(p_rows jsonb) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  v_now timestamptz := public.reactive_worker_now();
  v_owner uuid := auth.uid();
  v_problem text;
  v_rows jsonb;
  v_refused text;
  v_user constant boolean := current_user in ('anon', 'authenticated');
begin
  if p_rows is null or jsonb_typeof(p_rows) <> 'array' then
    raise exception using errcode = '22023', message = 'p_rows must be an array of objects';
  end if;
  select format('row %s: %s', r.n, p.problem) into v_problem
  from jsonb_array_elements(p_rows) with ordinality r (value, n)
  cross join lateral (select reactive_worker_private.submit_problem(r.value, v_user)) p (problem)
  where p.problem is not null
  order by r.n limit 1;
  if found then
    raise exception using errcode = '22023', message = v_problem;
  end if;

  select coalesce(jsonb_agg(jsonb_strip_nulls(r.value - 'input_data')
    || jsonb_build_object('n', r.n, 'input_data', r.value -> 'input_data') order by r.n), '[]')
  into v_rows
  from jsonb_array_elements(p_rows) with ordinality r (value, n);

  begin
    if v_user then
      return reactive_worker_private.insert_own_todos(v_rows, v_now, v_owner);
    end if;
    return reactive_worker_private.insert_todos(v_rows, v_now, v_owner);
  exception when invalid_parameter_value then
    -- The table has refused one of them (see limits): which one?
    v_refused := sqlerrm;
    select format('row %s: %s', r.n, p.problem) into v_problem
    from jsonb_to_recordset(v_rows) as r (n bigint, agent_type text, prompt text, input_data jsonb, priority integer,
      delay_seconds double precision, available_at timestamptz, idempotency_key text, context_id text,
      max_failures integer, timeout_seconds integer)
    cross join lateral (select reactive_worker_private.todo_problem(r.agent_type, r.prompt, nullif(r.input_data, 'null'),
      coalesce(r.priority, 0),
      coalesce(r.available_at, v_now + make_interval(secs => coalesce(r.delay_seconds, 0))), r.max_failures,
      r.timeout_seconds, r.context_id, r.idempotency_key, v_user)) p (problem)
    where p.problem is not null
    order by r.n limit 1;
    raise exception using errcode = '22023', message = coalesce(v_problem, v_refused);
  end;
end
$$;

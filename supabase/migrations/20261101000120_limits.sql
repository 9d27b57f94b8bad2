-- What no run can take is refused where it enters: by the table itself, whoever writes.
--
-- jsonb holds more than those who read it: numbers of 131,072 digits (Python reads 4,300, and a float ends at 1e308; runs
-- get whole numbers exactly, up to the limit below), and any depth. An A2A message may be 100 protobuf levels deep, and
-- an object of JSON takes three of them: runs take 30 levels (MOST_LEVELS in reactive_worker/models.py). A row that no
-- worker can read would be claimed and given back for ever.

-- The limits of this project, in one row. To change one, as the owner of the database:
--   update reactive_worker_private.limits set user_input_bytes = 4000000;
create table reactive_worker_private.limits (
  only_row boolean primary key default true,
  -- For everybody, back ends included.
  input_bytes integer not null default 33554432,
  input_levels integer not null default 30,
  number_digits integer not null default 1000,
  message_bytes integer not null default 1048576,
  message_levels integer not null default 33,
  -- For signed-in users (and for anonymous ones, where they may submit).
  user_input_bytes integer not null default 1048576,
  user_priority_least integer not null default -100,
  user_priority_most integer not null default 100,
  user_max_failures integer not null default 10,
  user_timeout_seconds integer not null default 86400,
  user_delay_seconds integer not null default 31622400,
  -- For workers with a token of their own (the role reactive_worker).
  workers_prune_after interval,
  constraint limits_only_row check (only_row),
  -- Larger rows cannot be claimed within the statement timeouts of hosted projects.
  constraint limits_input_bytes check (input_bytes between 1000 and 67108864),
  constraint limits_input_levels check (input_levels between 4 and 30),
  -- Three of them are the message's own.
  constraint limits_message_levels check (message_levels between 4 and 33),
  -- A float holds whole numbers of 309 digits; Python reads 4,300.
  constraint limits_number_digits check (number_digits between 309 and 4000),
  constraint limits_message_bytes check (message_bytes between 1000 and 8388608),
  constraint limits_user_input_bytes check (user_input_bytes >= 1),
  constraint limits_user_priority check (user_priority_least <= user_priority_most),
  constraint limits_user_max_failures check (user_max_failures >= 1),
  constraint limits_user_timeout_seconds check (user_timeout_seconds >= 1),
  constraint limits_user_delay_seconds check (user_delay_seconds >= 0)
);
comment on table reactive_worker_private.limits is 'What tasks and messages may be like. One row; change it as you need.';
comment on column reactive_worker_private.limits.input_bytes is 'Bytes of prompt and input_data together.';
comment on column reactive_worker_private.limits.input_levels is 'Objects and arrays within each other.';
comment on column reactive_worker_private.limits.number_digits is
  'Digits of a whole number. Those beyond 1e308 do not fit into a float; execution carries them exactly.';
comment on column reactive_worker_private.limits.message_levels is
  'Objects and arrays within each other, three of which are the message''s own: it becomes an A2A message.';
comment on column reactive_worker_private.limits.message_bytes is 'Bytes of an answer, or of a message to a running agent.';
comment on column reactive_worker_private.limits.workers_prune_after is
  'What ended longer ago, a worker with a token of its own may prune; null: nothing.';
insert into reactive_worker_private.limits default values;

create function reactive_worker_private.limits() returns reactive_worker_private.limits
language plpgsql stable security definer
set search_path = ''
as $$
declare
  v_limits reactive_worker_private.limits;
begin
  select l.* into v_limits from reactive_worker_private.limits l;
  return v_limits;
end
$$;

-- Why this JSON cannot be read by everybody; null when it can. p_size: its bytes as text, or in binary, which are never
-- fewer than two for each level.
create function reactive_worker_private.json_problem(p_value jsonb, p_size integer, p_levels integer, p_digits integer)
returns text
language plpgsql immutable
set search_path = ''
as $$
declare
  v_number text;
begin
  if p_size >= 2 * p_levels and jsonb_path_exists(p_value,
    format('strict $.**{%s} ? (@.type() == "object" || @.type() == "array")', p_levels)::jsonpath) then
    return format('must not be nested deeper than %s levels', p_levels);
  end if;
  for v_number in
    select n::text from jsonb_path_query(p_value,
      'strict $.** ? (@ >= 1e308 || @ <= -1e308 || @ < 1e-307 && @ > -1e-307 && @ != 0)') n
  loop
    if v_number ~ '^-?0?\.' then
      return 'must not hold a number nearer to zero than 1e-307';
    elsif strpos(v_number, '.') > 0 then
      return 'must not hold a fraction beyond 1e308';
    elsif char_length(ltrim(v_number, '-')) > p_digits then
      return format('must not hold a number of more than %s digits', p_digits);
    end if;
  end loop;
  return null;
end
$$;

-- Whether a name holds characters that terminals and logs obey, or that hide or turn others: C0 and C1, zero width,
-- line and paragraph separators, marks of direction.
create function reactive_worker_private.has_control(p_text text) returns boolean
language plpgsql immutable
set search_path = ''
as $$
begin
  return p_text ~ '[\u0001-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]';
end
$$;

-- What is wrong with a task; null when nothing is. Each begins with the name of the column.
create function reactive_worker_private.todo_problem(
  p_agent_type text, p_prompt text, p_input_data jsonb, p_priority integer, p_available_at timestamptz,
  p_max_failures integer, p_timeout_seconds integer, p_context_id text, p_idempotency_key text, p_user boolean
) returns text
language plpgsql stable security definer
set search_path = ''
as $$
declare
  v_limits reactive_worker_private.limits := reactive_worker_private.limits();
  v_size integer := coalesce(octet_length(p_input_data::text), 0);
  v_most integer := case when p_user then least(v_limits.user_input_bytes, v_limits.input_bytes)
    else v_limits.input_bytes end;
  v_problem text;
begin
  if p_agent_type = '' or reactive_worker_private.has_control(p_agent_type) then
    return 'agent_type must be a text without control characters';
  elsif reactive_worker_private.has_control(p_context_id) then
    return 'context_id must be a text without control characters';
  elsif reactive_worker_private.has_control(p_idempotency_key) then
    return 'idempotency_key must be a text without control characters';
  end if;
  if p_input_data is not null then
    v_problem := reactive_worker_private.json_problem(
      p_input_data, v_size, v_limits.input_levels, v_limits.number_digits);
    if v_problem is not null then
      return 'input_data ' || v_problem;
    end if;
  end if;
  if octet_length(p_prompt)::bigint + v_size > v_most then
    return format('prompt and input_data must have at most %s bytes together, got %s', v_most,
      octet_length(p_prompt)::bigint + v_size);
  end if;
  if not p_user then
    return null;
  end if;
  return case
    when p_priority not between v_limits.user_priority_least and v_limits.user_priority_most then
      format('priority must be between %s and %s, got %s', v_limits.user_priority_least, v_limits.user_priority_most,
        p_priority)
    when p_available_at > public.reactive_worker_now() + make_interval(secs => v_limits.user_delay_seconds) then
      format('available_at must be at most %s seconds from now', v_limits.user_delay_seconds)
    when p_max_failures > v_limits.user_max_failures then
      format('max_failures must be at most %s, got %s', v_limits.user_max_failures, p_max_failures)
    when p_timeout_seconds > v_limits.user_timeout_seconds then
      format('timeout_seconds must be at most %s, got %s', v_limits.user_timeout_seconds, p_timeout_seconds) end;
end
$$;

-- SECURITY DEFINER, as whoever may write the table need not be able to read the limits.
create function reactive_worker_private.todolist_limits() returns trigger
language plpgsql security definer
set search_path = ''
as $$
declare
  v_user constant boolean := tg_argv[0] = 'user';
  v_problem text := reactive_worker_private.todo_problem(new.agent_type, new.prompt, new.input_data, new.priority,
    new.available_at, new.max_failures, new.timeout_seconds, new.context_id, new.idempotency_key, v_user);
begin
  if v_problem is not null then
    raise exception using errcode = '22023', message = v_problem, table = 'todolist', constraint = 'todolist_limits',
      column = split_part(v_problem, ' ', 1);
  end if;
  -- Whatever a user says is due since long ago is due now: nobody shall get past those who wait by a date.
  if v_user then
    new.available_at := greatest(new.available_at, public.reactive_worker_now());
  end if;
  return new;
end
$$;

create function reactive_worker_private.todolist_times() returns trigger
language plpgsql
set search_path = ''
as $$
declare
  v_column text;
  v_value text;
begin
  select t.key, t.value into v_column, v_value
  from jsonb_each_text(to_jsonb(new)) t
  where t.key in ('created_at', 'updated_at', 'available_at', 'started_at', 'completed_at', 'cancel_requested_at')
    and not (t.value::timestamptz >= '1900-01-01' and t.value::timestamptz < '9999-01-01')
  order by t.key limit 1;
  raise exception using errcode = '22023', table = 'todolist', column = v_column, constraint = 'todolist_times',
    message = format('%s must be between the years 1900 and 9998, got %s', v_column, v_value);
end
$$;

-- Who is judged as a user is asked in WHEN, before SECURITY DEFINER changes the answer. Only for the columns somebody
-- gives a task, without context_id, which claims fill in: claims and ends pass by. The names come after
-- todolist_fill_in, which fires first: triggers of one kind fire in the order of their names.
create trigger todolist_limits before insert or update of agent_type, prompt, input_data, idempotency_key
  on public.todolist for each row when (current_user not in ('anon', 'authenticated'))
  execute function reactive_worker_private.todolist_limits('everybody');
create trigger todolist_limits_of_users before insert or update of agent_type, prompt, input_data, priority, available_at,
  max_failures, timeout_seconds, idempotency_key
  on public.todolist for each row when (current_user in ('anon', 'authenticated'))
  execute function reactive_worker_private.todolist_limits('user');
-- Every write of every time, at the price of a few comparisons: Python knows neither infinity nor the year 12000.
create trigger todolist_times before insert or update on public.todolist for each row when (
  least(new.created_at, new.updated_at, new.available_at, new.started_at, new.completed_at, new.cancel_requested_at)
    < '1900-01-01 00:00:00+00'
  or greatest(new.created_at, new.updated_at, new.available_at, new.started_at, new.completed_at,
    new.cancel_requested_at) >= '9999-01-01 00:00:00+00')
  execute function reactive_worker_private.todolist_times();

-- What is wrong with an A2A Message to an agent; null when nothing is. The types of what every reader knows by name: what
-- else may be in it is the protocol's business.
create function reactive_worker_private.message_problem(p_message jsonb) returns text
language plpgsql stable security definer
set search_path = ''
as $$
declare
  v_limits reactive_worker_private.limits := reactive_worker_private.limits();
  v_size integer := octet_length(p_message::text);
  v_part jsonb;
  v_n bigint;
  v_problem text;
begin
  if jsonb_typeof(p_message) is distinct from 'object'
    or jsonb_typeof(p_message -> 'parts') is distinct from 'array'
    or jsonb_array_length(p_message -> 'parts') = 0 then
    return 'must be an A2A Message: an object with a non-empty array "parts"';
  elsif v_size > v_limits.message_bytes then
    return format('must have at most %s bytes, got %s', v_limits.message_bytes, v_size);
  end if;
  v_problem := reactive_worker_private.json_problem(p_message, v_size, v_limits.message_levels, v_limits.number_digits);
  if v_problem is not null then
    return v_problem;
  end if;
  v_problem := reactive_worker_private.type_problem(p_message,
    array['messageId', 'message_id', 'contextId', 'context_id', 'taskId', 'task_id', 'role'],
    array['extensions', 'referenceTaskIds', 'reference_task_ids']);
  for v_part, v_n in select p.value, p.n from jsonb_array_elements(p_message -> 'parts') with ordinality p (value, n) loop
    exit when v_problem is not null;
    if jsonb_typeof(v_part) <> 'object' then
      v_problem := 'must be an object';
    elsif (select count(*) from jsonb_each(v_part) e
           where e.key = 'data' or e.key in ('text', 'url', 'raw') and e.value <> 'null') <> 1 then
      v_problem := 'must have one of text, data, url and raw';
    elsif v_part ->> 'raw' !~ '^[A-Za-z0-9+/_-]*={0,2}$' then
      v_problem := 'must have base64 as raw';
    else
      v_problem := reactive_worker_private.type_problem(v_part,
        array['text', 'url', 'raw', 'filename', 'mediaType', 'media_type'], '{}');
    end if;
    v_problem := format('part %s ', v_n) || v_problem;
  end loop;
  return v_problem;
end
$$;

-- Which of these keys has a value of another type than it must have; null when none has. metadata is an object.
create function reactive_worker_private.type_problem(p_object jsonb, p_texts text[], p_lists text[]) returns text
language plpgsql immutable
set search_path = ''
as $$
begin
  return (
    select format('must have %s as %s', case when e.key = any (p_texts) then 'a text'
      when e.key = any (p_lists) then 'a list of texts' else 'an object' end, e.key)
    from jsonb_each(p_object) e
    where e.value <> 'null' and case
      when e.key = any (p_texts) then jsonb_typeof(e.value) <> 'string'
      when e.key = any (p_lists) then jsonb_typeof(e.value) <> 'array'
        or jsonb_path_exists(e.value, 'strict $[*] ? (@.type() != "string")')
      else e.key = 'metadata' and jsonb_typeof(e.value) <> 'object' end
    order by e.key limit 1);
end
$$;

-- What has ended long ago goes: in batches, oldest first, with its log and the files of its results.

-- At most p_limit tasks that ended longer ago than p_older_than, in one of these statuses. Open ones are never touched.
-- Returns
--   pruned   their ids
--   files    [{"bucket", "path"}] of Storage that only they named: to be deleted by whoever calls, for SQL cannot
--   kept     [{"id", "reason"}]: a table of the project's own needs them (a foreign key), or a trigger of its own refuses
--   more     whether there may be more to prune
-- Costs what it deletes: the oldest ones are found by the index of what has ended.
create function public.prune_todos(
  p_older_than interval, p_statuses text[] default '{completed,cancelled,failed}', p_limit integer default 1000
) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  v_least interval;
  v_before timestamptz;
  v_ids uuid[];
  v_after timestamptz := '-infinity';
  v_scanned integer;
  v_pruned uuid[] := '{}';
  v_files jsonb := '[]';
  v_kept jsonb := '[]';
  v_batch record;
begin
  if p_older_than is null or p_older_than < interval '0' then
    raise exception using errcode = '22023',
      message = format('p_older_than must not be negative, got %s', coalesce(p_older_than::text, 'null'));
  elsif p_statuses is null or not p_statuses <@ array['completed', 'failed', 'cancelled'] then
    raise exception using errcode = '22023', message = format(
      'p_statuses must be among completed, failed and cancelled, got %s', coalesce(p_statuses::text, 'null'));
  elsif p_limit is null or p_limit not between 1 and 10000 then
    raise exception using errcode = '22023',
      message = format('p_limit must be between 1 and 10000, got %s', coalesce(p_limit::text, 'null'));
  end if;
  -- A worker's token may leak: with it nothing goes that the project has not given free.
  if current_setting('role') = 'reactive_worker' then
    v_least := (reactive_worker_private.limits()).workers_prune_after;
    if v_least is null or p_older_than < v_least then
      raise exception using errcode = '42501', message = format('workers may not prune what ended less than %s ago',
        coalesce(v_least::text, 'forever')),
        hint = 'As the owner: update reactive_worker_private.limits set workers_prune_after = interval ''30 days''';
    end if;
  end if;
  v_before := public.reactive_worker_now() - p_older_than;

  -- What is locked is skipped, what must stay is passed by: neither keeps the rest from going.
  for v_round in 1..10 loop
    select array_agg(t.id order by t.completed_at, t.id), max(t.completed_at), count(*) into v_ids, v_after, v_scanned
    from (
      select t.id, t.completed_at from public.todolist t
      where t.completed_at is not null and t.completed_at < v_before and t.completed_at > v_after
        and t.agent_status = any (p_statuses)
      order by t.completed_at limit p_limit - cardinality(v_pruned)
    ) t;
    exit when v_ids is null;
    v_batch := reactive_worker_private.delete_ended(v_ids);
    v_pruned := v_pruned || v_batch.deleted;
    v_files := v_files || v_batch.files;
    v_kept := v_kept || v_batch.kept;
    exit when cardinality(v_pruned) >= p_limit;
  end loop;
  return jsonb_build_object('pruned', to_jsonb(v_pruned), 'files', v_files, 'kept', v_kept,
    'more', v_ids is not null);
end
$$;
comment on function public.prune_todos(interval, text[], integer) is
  'Deletes tasks that ended long ago, with their events; tells which files of theirs remain to be deleted.';

-- Deletes these, those that are still ended and that nobody has locked: all at once, or each by itself when that is
-- refused.
create function reactive_worker_private.delete_ended(
  p_ids uuid[], out deleted uuid[], out files jsonb, out kept jsonb
)
language plpgsql
set search_path = ''
as $$
declare
  v_ids uuid[];
  v_id uuid;
begin
  kept := '[]';
  deleted := '{}';
  v_ids := array(
    select t.id from public.todolist t
    where t.id = any (p_ids) and t.agent_status in ('completed', 'failed', 'cancelled')
    order by t.id for update skip locked);
  -- Before they are gone. Only what lies in a folder named like the task: a result may name files of others.
  select coalesce(jsonb_agg(distinct jsonb_build_object('todolist_id', f.id, 'bucket', f.place ->> 'bucket',
    'path', f.place ->> 'path')), '[]')
  into files
  from (
    select e.todolist_id as id, jsonb_path_query(e.event_data, 'lax $.**.metadata.storage') as place
    from public.events e where e.todolist_id = any (v_ids) and e.event_data @? 'lax $.**.storage.path'
    union all
    select t.id, jsonb_path_query(t.agent_output, 'lax $.**.metadata.storage')
    from public.todolist t where t.id = any (v_ids) and t.agent_output @? 'lax $.**.storage.path'
  ) f
  where starts_with(f.place ->> 'path', f.id || '/');
  begin
    delete from public.todolist t where t.id = any (v_ids);
    deleted := v_ids;
  exception when others then
    if reactive_worker_private.is_weather(sqlstate) then
      raise;
    end if;
    foreach v_id in array v_ids loop
      begin
        delete from public.todolist t where t.id = v_id;
        deleted := deleted || v_id;
      exception when others then
        if reactive_worker_private.is_weather(sqlstate) then
          raise;
        end if;
        kept := kept || jsonb_build_object('id', v_id, 'reason', sqlerrm);
      end;
    end loop;
  end;
  select coalesce(jsonb_agg(f - 'todolist_id'), '[]') into files
  from jsonb_array_elements(files) f where (f ->> 'todolist_id')::uuid = any (deleted);
end
$$;

-- SECURITY DEFINER, for workers that keep house (`run --retain`): their role may delete nothing else.
alter function public.prune_todos(interval, text[], integer) security definer;
revoke all on function
  public.prune_todos(interval, text[], integer),
  reactive_worker_private.delete_ended(uuid[])
  from public, anon, authenticated, service_role, reactive_worker;
grant execute on function public.prune_todos(interval, text[], integer) to service_role, reactive_worker;

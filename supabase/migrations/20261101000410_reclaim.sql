-- Back from the dead: what nobody runs any more. A call of its own, in a transaction of its own: whatever happens here,
-- workers go on finding and claiming what is due, and the other way round.

-- Returns how many rows were put back, about a thousand at most (the next call goes on), and which could not be: locked by
-- somebody else, or refused.
create function public.reclaim_todos(p_worker_id uuid) returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  v_now timestamptz := public.reactive_worker_now();
  v_alive_since timestamptz;
  v_workers uuid[];
  v_busy jsonb := '[]';
  v_refused jsonb := '[]';
  v_count integer := 0;
  v_ids uuid[];
  v_bad jsonb;
  v_how text;
begin
  -- Only the living call others dead: who was alive when the other's lease ended, or has been again for a third of
  -- that lease, 5 seconds at most. After an outage of the database everybody's lease has run out; whoever reconnects
  -- first must give the others the time of a heartbeat.
  select s.alive_since into v_alive_since
  from public.workers s where s.id = p_worker_id and s.lease_until > v_now;

  -- Skip what is locked: another reclaim is at it, or a claim or a heartbeat that was in time. Any hundred of them: some
  -- may stay for long because of a row that cannot be put back, and shall not hide the others.
  select array_agg(w.id) into v_workers
  from (
    select w.id from public.workers w
    where w.lease_until <= v_now and w.id <> p_worker_id
      and (v_alive_since <= w.lease_until
        or v_alive_since <= v_now - least(interval '5 seconds', (w.lease_until - w.heartbeat_at) / 3))
    order by random() limit 100
    for update skip locked
  ) w;
  if v_workers is not null then
    -- From here on no heartbeat leads back, and how many were in flight is remembered: more than a thousand rows take
    -- several calls, and the last one of them must not look as if it had been alone. A statement of its own, after the
    -- workers were locked: it sees every claim they managed to make.
    update public.workers w
    set lease_until = 'epoch', lost_runs = coalesce(w.lost_runs, (
      select count(*) from (
        select from public.todolist t where t.agent_status = 'in_progress' and t.worker_id = w.id limit 2) t))
    where w.id = any (v_workers);
    foreach v_how in array array['lost', 'suspected', 'released'] loop
      v_ids := array(
        select t.id from public.todolist t
        join public.workers w on w.id = t.worker_id
        where t.agent_status = 'in_progress' and t.worker_id = any (v_workers)
          and w.lost_runs = any (case v_how when 'lost' then '{1}' when 'suspected' then '{2}' else '{0}' end::integer[])
          and not exists (
            select from reactive_worker_private.refusals r where r.todolist_id = t.id and r.next_at > v_now)
        order by t.id limit 1000
        for update of t skip locked);
      v_bad := reactive_worker_private.put_back_each(v_ids, v_how);
      v_count := v_count + cardinality(v_ids) - jsonb_array_length(v_bad);
      v_refused := v_refused || v_bad;
    end loop;
    delete from public.workers w
    where w.id = any (v_workers)
      and not exists (select from public.todolist t where t.agent_status = 'in_progress' and t.worker_id = w.id);
    -- What is left is locked, was refused, or was more than a thousand rows. Nobody waits for it.
    select coalesce(jsonb_agg(jsonb_build_object('id', l.id, 'attempt', l.attempt)), '[]') into v_busy
    from (
      select t.id, t.attempt from public.todolist t
      where t.agent_status = 'in_progress' and t.worker_id = any (v_workers)
        and not exists (select from reactive_worker_private.refusals r where r.todolist_id = t.id and r.next_at > v_now)
      order by t.id limit 100
    ) l;
  end if;

  -- Written by hand: in progress, but with nobody.
  v_ids := array(
    select t.id from public.todolist t
    where t.agent_status = 'in_progress' and t.worker_id is null
      and not exists (select from reactive_worker_private.refusals r where r.todolist_id = t.id and r.next_at > v_now)
    order by t.id limit 1000
    for update skip locked);
  v_bad := reactive_worker_private.put_back_each(v_ids, 'released');
  v_count := v_count + cardinality(v_ids) - jsonb_array_length(v_bad);
  v_refused := v_refused || v_bad;

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
  foreach v_how in array case when v_workers is null then '{}' else array['lost', 'suspected'] end loop
    v_ids := array(
      select t.id from public.todolist t
      where t.agent_status = 'in_progress' and t.worker_id = any (v_workers)
        and reactive_worker_private.how_lost(t.worker_id) = v_how
        -- A claim that has just begun under a worker that has just registered.
        and not exists (select from public.workers w where w.id = t.worker_id)
        and not exists (select from reactive_worker_private.refusals r where r.todolist_id = t.id and r.next_at > v_now)
      order by t.id limit 1000
      for update skip locked);
    v_bad := reactive_worker_private.put_back_each(v_ids, v_how);
    v_count := v_count + cardinality(v_ids) - jsonb_array_length(v_bad);
    v_refused := v_refused || v_bad;
  end loop;

  -- Ended while it was under suspicion (cancelled, changed by hand): no more.
  delete from reactive_worker_private.suspects s using public.todolist t
  where t.id = s.todolist_id and t.agent_status in ('completed', 'failed', 'cancelled');
  -- Long pauses are an hour; who has not been refused since then is not refused any more.
  delete from reactive_worker_private.refusals r where r.next_at < v_now - interval '1 hour';
  return jsonb_build_object('now', v_now, 'reclaimed', v_count, 'busy', v_busy, 'refused', v_refused);
end
$$;

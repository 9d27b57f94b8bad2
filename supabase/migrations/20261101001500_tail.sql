-- Everybody's events as they are committed: what `tail` reads.
--
-- Transactions commit in another order than they begin, so neither created_at nor any number handed out on insert is a
-- cursor: a row may appear behind one that was read already, however long ago that one was written. PostgreSQL itself
-- knows what a reader has seen: a snapshot says which transactions had ended when it was taken. So the cursor is the
-- snapshot of the look before, and each event carries the id of the transaction that wrote it. New is what that
-- snapshot could not see, each event once, however long its transaction took, and nothing waits for anybody.

-- The default is evaluated once for all rows that are there: they need no rewrite.
alter table public.events
  add column if not exists txid bigint not null default (pg_current_xact_id()::text::bigint);
comment on column public.events.txid is 'The transaction that wrote this event: tail_events reads by it.';

-- Grows at its end only, and equal keys (an append writes many rows) take little room.
create index if not exists events_txid_idx on public.events (txid);

-- p_since   the `until` of the look before; null for the newest p_limit events.
-- p_until   only with p_after: the `until` of this look's first page, so that all its pages show one moment.
-- p_after   the last (todolist_id, seq) of the page before.
-- Answers {"events": [...], "until": a snapshot, "more": whether this look goes on, "restarted": true when p_since is
-- of another database (a restored one), so that what was written between the two cannot be told}. Each page is ordered
-- by task and seq. It ends after p_limit events or 4 MB, whichever comes first.
create function public.tail_events(
  p_since text default null,
  p_limit integer default 500,
  p_until text default null,
  p_after_task uuid default null,
  p_after_seq bigint default null
) returns jsonb
language plpgsql stable security invoker set search_path = ''
as $$
declare
  c_bytes constant bigint := 4194304;
  v_now constant pg_snapshot := pg_current_snapshot();
  v_since pg_snapshot;
  v_until pg_snapshot;
  v_first bigint;
  v_last bigint;
  v_open bigint[];
  v_limit constant integer := least(greatest(coalesce(p_limit, 500), 1), 1000);
  v_found jsonb;
begin
  if p_since is null then
    select coalesce(jsonb_agg(n.event order by n.place desc) filter (where n.place = 1 or n.bytes <= c_bytes), '[]')
    into v_found
    from (
      select to_jsonb(e) - 'txid' as event,
        row_number() over w as place,
        sum(octet_length(e.event_data::text)) over w as bytes
      from (select e.* from public.events e order by e.created_at desc, e.seq desc limit v_limit) e
      window w as (order by e.created_at desc, e.seq desc, e.id)
    ) n;
    return jsonb_build_object('events', v_found, 'until', v_now::text, 'more', false, 'restarted', false);
  end if;

  v_since := p_since::pg_snapshot;
  v_until := coalesce(p_until::pg_snapshot, v_now);
  v_first := pg_snapshot_xmax(v_since)::text::bigint;
  v_last := pg_snapshot_xmax(v_until)::text::bigint;
  if v_first > pg_snapshot_xmax(v_now)::text::bigint then
    return jsonb_build_object('events', '[]'::jsonb, 'until', v_now::text, 'more', false, 'restarted', true);
  end if;
  -- Invisible then: what began after it, and what it saw running. (Rows imported from another database carry numbers
  -- of that one; those this database has not reached are none of its transactions.)
  v_open := array(select x::text::bigint from pg_snapshot_xip(v_since) x);

  with page as materialized (
    select e.*
    from public.events e
    where (e.txid >= v_first and e.txid < v_last or e.txid = any (v_open))
      and pg_visible_in_snapshot(e.txid::text::xid8, v_until)
      and (p_after_task is null or (e.todolist_id, e.seq) > (p_after_task, p_after_seq))
    order by e.todolist_id, e.seq
    limit v_limit
  ),
  sized as (
    select p.todolist_id, p.seq, to_jsonb(p) - 'txid' as event,
      row_number() over w as place,
      sum(octet_length(p.event_data::text)) over w as bytes
    from page p window w as (order by p.todolist_id, p.seq)
  )
  select jsonb_build_object(
    'events', coalesce(jsonb_agg(s.event order by s.todolist_id, s.seq)
      filter (where s.place = 1 or s.bytes <= c_bytes), '[]'),
    'until', v_until::text,
    'more', count(*) = v_limit or coalesce(bool_or(s.place > 1 and s.bytes > c_bytes), false),
    'restarted', false)
  into v_found
  from sized s;
  return v_found;
end
$$;
comment on function public.tail_events(text, integer, text, uuid, bigint) is
  'Events of all tasks the caller may see that were committed since a snapshot, each once.';

-- With the caller's own rights: row level security decides which events these are.
revoke all on function public.tail_events(text, integer, text, uuid, bigint)
  from public, anon, authenticated, service_role, reactive_worker;
grant execute on function public.tail_events(text, integer, text, uuid, bigint) to authenticated, service_role;

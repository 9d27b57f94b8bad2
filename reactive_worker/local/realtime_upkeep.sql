-- What must be in order for messages to be stored and streamed: the publication they are streamed from, and the
-- daily partitions of realtime.messages from yesterday to in three days; those of messages older than three
-- days are dropped. Repeatable; Realtime runs it when its first client joins and every few hours. Without the
-- partition of today realtime.send loses every message, with a warning only.

do $publication$
begin
  if not exists (
    select from pg_catalog.pg_publication_rel as entry
    join pg_catalog.pg_publication as publication on publication.oid = entry.prpubid
    where publication.pubname = 'supabase_realtime_messages_publication'
      and entry.prrelid = 'realtime.messages'::regclass
  ) then
    drop publication if exists supabase_realtime_messages_publication;
    create publication supabase_realtime_messages_publication for table realtime.messages;
  end if;
end
$publication$;

do $partitions$
declare
  today date := (pg_catalog.now() at time zone 'UTC')::date;
  day date;
  name text;
  past record;
begin
  -- Whoever keeps a transaction with a message open must not keep everybody else waiting.
  perform pg_catalog.set_config('lock_timeout', '2s', true);
  for days in -1 .. 3 loop
    day := today + days;
    name := 'messages_' || pg_catalog.to_char(day, 'YYYY_MM_DD');
    -- Looked for first: creating one locks the whole table, for as long as anybody is writing to it.
    if pg_catalog.to_regclass('realtime.' || name) is null then
      execute pg_catalog.format(
        'create table realtime.%I partition of realtime.messages for values from (%L) to (%L)',
        name, day, day + 1);
      execute pg_catalog.format('alter table realtime.%I owner to supabase_realtime_admin', name);
    end if;
  end loop;
  for past in
    select child.relname
    from pg_catalog.pg_inherits as link
    join pg_catalog.pg_class as child on child.oid = link.inhrelid
    where link.inhparent = 'realtime.messages'::regclass
      and child.relname ~ '^messages_\d{4}_\d\d_\d\d$'
      and pg_catalog.to_date(pg_catalog.substr(child.relname, 10), 'YYYY_MM_DD') < today - 3
  loop
    execute pg_catalog.format('drop table realtime.%I', past.relname);
  end loop;
end
$partitions$;

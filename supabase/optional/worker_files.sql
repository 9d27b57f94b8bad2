-- Files for workers with a token of their own: a private bucket they may look at, read and add to, and no other.
--
-- Not a migration: a project without files does not need it. Run it in the SQL editor of the dashboard; it may be run
-- again. Change `results`, five times, to the name in REACTIVE_WORKER_ARTIFACTS_BUCKET.

insert into storage.buckets (id, name, public) values ('results', 'results', false) on conflict (id) do nothing;

drop policy if exists "workers look at their bucket" on storage.buckets;
create policy "workers look at their bucket" on storage.buckets
  for select to reactive_worker using (id = 'results');
drop policy if exists "workers read their files" on storage.objects;
create policy "workers read their files" on storage.objects
  for select to reactive_worker using (bucket_id = 'results');
drop policy if exists "workers store their files" on storage.objects;
create policy "workers store their files" on storage.objects
  for insert to reactive_worker with check (bucket_id = 'results');

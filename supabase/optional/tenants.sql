-- Tenants: everybody of one tenant sees and steers that tenant's tasks, and nobody else does.
--
-- Not a migration: copy it into one of your own (`supabase migration new tenants`), and change the claim's name to what
-- your tokens say. A user's tenant is read from `app_metadata`, which users cannot write (user_metadata they can).

alter table public.todolist
  add column if not exists tenant_id text default (auth.jwt() -> 'app_metadata' ->> 'tenant_id');
create index if not exists todolist_tenant_idx on public.todolist (tenant_id, created_at) where tenant_id is not null;

-- The column is not among those a client may insert, so its default is what counts: nobody submits for another tenant.
-- The functions ask for visible rows, and events follow their tasks: nothing else needs a policy.
drop policy if exists "members see their tenant's tasks" on public.todolist;
create policy "members see their tenant's tasks" on public.todolist
  for select to authenticated
  using (tenant_id = (select auth.jwt() -> 'app_metadata' ->> 'tenant_id'));

-- Restrictive: it holds beside every other policy. Who has left a tenant no longer sees what they submitted there.
drop policy if exists "nobody sees another tenant's tasks" on public.todolist;
create policy "nobody sees another tenant's tasks" on public.todolist
  as restrictive for all to authenticated
  using (tenant_id is not distinct from (select auth.jwt() -> 'app_metadata' ->> 'tenant_id'));

-- A database as a user of process-gpt-agent-sdk has it: its two tables, open to everybody, in the middle of work.

create table public.todolist (
  id uuid primary key default gen_random_uuid(),
  agent_type varchar(100) not null,
  prompt text not null,
  input_data jsonb,
  agent_status varchar(50) default 'pending',
  agent_output jsonb,
  priority integer default 0,
  created_at timestamptz default now(),
  updated_at timestamptz default now(),
  started_at timestamptz,
  completed_at timestamptz,
  -- One of the user's own.
  customer text,
  constraint todolist_agent_status_check check (
    agent_status is null or agent_status in ('pending', 'in_progress', 'completed', 'failed', 'archived'))
);

create table public.events (
  id uuid primary key default gen_random_uuid(),
  todolist_id uuid not null references public.todolist (id),
  event_type varchar(50) not null,
  event_data jsonb not null,
  context_id varchar(255),
  task_id varchar(255),
  message text,
  created_at timestamptz default now()
);

create index idx_todolist_agent_status on public.todolist (agent_type, agent_status);
create index idx_events_todolist_id on public.events (todolist_id);

create function public.update_updated_at_column() returns trigger language plpgsql as $$
begin
  new.updated_at = now();
  return new;
end
$$;
create trigger update_todolist_updated_at before update on public.todolist
  for each row execute function public.update_updated_at_column();
-- The user's own, switched off: it must stay off.
create trigger switched_off before update on public.todolist
  for each row execute function public.update_updated_at_column();
alter table public.todolist disable trigger switched_off;

alter table public.todolist enable row level security;
alter table public.events enable row level security;
create policy "anybody" on public.todolist for all using (true) with check (true);
create policy "anybody" on public.events for all using (true) with check (true);
grant all on public.todolist, public.events to anon, authenticated, service_role;

insert into public.todolist
  (id, agent_type, prompt, input_data, agent_status, agent_output, priority, created_at, updated_at, started_at,
   completed_at, customer)
values
  ('00000000-0000-0000-0000-000000000001', 'test', 'waits', '{"n": 1}', 'pending', null, 5,
   '2026-01-01 10:00Z', '2026-01-01 10:00Z', null, null, 'acme'),
  ('00000000-0000-0000-0000-000000000002', 'test', 'was running', null, 'in_progress', null, 0,
   '2026-01-01 11:00Z', '2026-01-01 11:01Z', '2026-01-01 11:01Z', null, null),
  ('00000000-0000-0000-0000-000000000003', 'test', 'done', null, 'completed', '{"answer": 42}', 0,
   '2026-01-01 09:00Z', '2026-01-01 09:05Z', '2026-01-01 09:01Z', '2026-01-01 09:05Z', null),
  ('00000000-0000-0000-0000-000000000004', 'test', 'broke', null, 'failed', '{"error": "no such model"}', 0,
   '2026-01-01 09:00Z', '2026-01-01 09:02Z', '2026-01-01 09:01Z', null, null),
  ('00000000-0000-0000-0000-000000000005', 'test', 'half empty', null, null, null, null, null, null, null, null, null),
  ('00000000-0000-0000-0000-000000000006', 'test', 'put aside', null, 'archived', null, 0,
   '2026-01-01 08:00Z', '2026-01-01 08:00Z', null, null, null);

insert into public.events (todolist_id, event_type, event_data, message, created_at) values
  ('00000000-0000-0000-0000-000000000003', 'task_completed', '{"answer": 42}', 'done', '2026-01-01 09:05Z'),
  ('00000000-0000-0000-0000-000000000003', 'task_started', '{}', 'begun', '2026-01-01 09:01Z'),
  ('00000000-0000-0000-0000-000000000003', 'crew_says', '{"text": "hm"}', 'hm', '2026-01-01 09:03Z'),
  ('00000000-0000-0000-0000-000000000002', 'task_started', '{}', 'begun', '2026-01-01 11:01Z'),
  ('00000000-0000-0000-0000-000000000004', 'task_failed', '{"error": "no such model"}', null, null);

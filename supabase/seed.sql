-- A few waiting tasks, so that there is something to run after `supabase start` or `supabase db reset`.
-- The keys make it repeatable: seeding twice leaves three tasks.

insert into public.todolist (agent_type, prompt, input_data, priority, idempotency_key) values
  ('echo', 'Hello, worker!', null, 0, 'seed-echo-1'),
  ('echo', 'This one is more important, so it runs first.', '{"note": "priority 10"}', 10, 'seed-echo-2'),
  ('crew-ai-dr', 'Report briefly on how task queues survive crashed workers.', '{"depth": "brief"}', 0, 'seed-report-1')
on conflict (agent_type, idempotency_key, owner_id) where idempotency_key is not null do nothing;

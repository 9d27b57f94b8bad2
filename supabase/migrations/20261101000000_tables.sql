-- reactive-worker: a task queue in four tables.
--
-- THE TABLES
--   todolist        One row is one task. The row is the truth: its status, who holds it, what it answered.
--   events          The log of each task, numbered 1, 2, 3 ... without a gap (`seq`): what readers resume from.
--   workers         One row is one running worker process and its lease. Not published through Realtime: the
--                   heartbeats of a large fleet must not pass through its one polling thread.
--   worker_mailbox  One small row a worker, published: touching it wakes the worker (cancel, pause, drain), and the
--                   worker touches it itself to prove that push still reaches it.
--
-- THE LIFE OF A TASK
--
--     pending                  -> in_progress                              claim_todos
--     in_progress              -> completed, failed, cancelled             finish_todos
--     in_progress              -> input_required (waits for a person)      finish_todos
--     input_required           -> pending                                  answer_todo
--     in_progress              -> pending, after a failure with backoff    finish_todos (retry), reclaim_todos (lost)
--     in_progress              -> pending, unharmed                        release_todos, unregister_worker
--     pending, input_required  -> cancelled                                cancel_todo
--     failed, cancelled        -> pending                                  retry_todo
--     anything                 -> pending                                  by hand, in Studio: it runs (todolist_fill_in)
--
--   cancel_todo ends a pending or waiting task at once. A running one is only asked to stop (`cancel_requested_at`);
--   from then on every way back to pending or to input_required leads to cancelled instead.
--
-- WHO CALLS WHAT
--   clients   submit_todos, cancel_todo, retry_todo, answer_todo, steer_todo. They read todolist and events under row
--             level security, may insert the columns a client may choose, and write nothing else.
--   workers   register_worker, heartbeat_worker, unregister_worker; reclaim_todos to put back what the dead held;
--             sweep_todos to learn what is due, claim_todos to own it; append_events while it runs; finish_todos or
--             release_todos to let go; touch_probe; read_steering for what people say to a running agent (table
--             steering, see its own file); prune_todos where they keep house.
--   people    todo_stats, todo_timings, list_workers, set_worker_state, prune_todos.
--   Every function is one transaction, takes and returns batches, and returns one jsonb: PostgREST cuts off
--   result sets at `max_rows` without a word, but never a single value.
--
-- WHICH WRITE WINS
--   * Owning a task is being written in its row: agent_status = 'in_progress', worker_id and attempt. `attempt` grows
--     with every claim and never goes back. Each write of a run names (worker, attempt) and is refused when the row
--     says otherwise, so a worker that was given up for dead and comes back late changes nothing. Answers about runs
--     name (id, attempt), too: an id alone says nothing about a run.
--   * The lease belongs to the worker, not to the task: one UPDATE a heartbeat, whatever runs. After a lease ran out
--     the first reclaim of a living worker puts the dead one's tasks back and deletes it. Until then the worker may
--     renew it: an outage of the database outlasts every lease, and nobody shall be robbed for coming back second.
--   * A claim share-locks its worker's row, a reclaim locks it exclusively before it reads what that worker holds: a
--     claim is seen by the reclaim, or finds its worker gone.
--   * Two people answer, cancel or retry at once: the row's lock decides, the second one is told the state it found.
--   * Status and log change in one transaction, under the row's lock, so they cannot disagree.
--
-- ONE BAD ROW HARMS ONLY ITSELF
--   * What no run can take is refused where it enters, by the table itself (file limits).
--   * A batch is done as a whole; only if that raises, it is done again row by row, each in a subtransaction of its own.
--     What was `refused` is reported by id and attempt with the reason, and the rest is done. `busy` is what somebody
--     else has locked: nobody waits longer than a fifth of a second for it. Only trouble that is not the row's (disk
--     full, shutting down, read only) makes a call fail as a whole. submit_todos alone is all or nothing.
--   * A claim that is refused counts a failure, as does an end that is refused twice: the row goes back with growing
--     pauses, or is failed with the reason (table refusals). Nothing stays in progress under a living lease for it.
--   * Answers are bounded in bytes as well as in rows.
--
-- SUSPECTS. One task that kills its process takes down whatever runs beside it, and nobody can see which one it was.
--   * A run lost ALONE is certain: it counts a failure.
--   * Runs lost TOGETHER count none; each becomes a suspect (table suspects) and from now on runs in HALF that company:
--     of ten that were in flight, each runs where no more than five are, itself included, then two, then one. No worker
--     claims more beside a suspect than that.
--   * Any end of its run clears a suspect; and when one is lost alone, those it was last lost together with are cleared,
--     for the culprit is found.
--   Hence a task that kills its worker every time is alone after a few shared losses (four with twenty in flight), ends
--   `failed: worker lost` after its own budget, and an innocent one never pays: only who was alone does. And a machine
--   that is lost for another reason costs its tasks hardly any speed: halves run side by side.
--   A busy worker makes room for a suspect by claiming nothing until few enough are in flight; it is reserved for that
--   suspect then, and no more than half of the living workers are at a time.
--
-- LOCK ORDER, in every function: workers, then todolist ordered by id, then worker_mailbox. Whoever cannot keep it
-- skips what is locked, or waits for less than the time after which PostgreSQL looks for deadlocks. Hence no deadlock
-- between batches that share rows.
--
-- NUMBERS. While a task is claimed only its holder writes events, counting on from the number claim_todos returned;
-- otherwise the database counts, holding the row's lock. So an event batch never has to update the task's row.
--
-- TIME is the database's, read through reactive_worker_now(), which tests can move.

-- "if not exists": the file before this one has brought the predecessor's tables into the same shape.
create table if not exists public.todolist (
  id uuid primary key default public.reactive_worker_uuid(),
  agent_type varchar(100) not null,
  prompt text not null,
  input_data jsonb,
  agent_status varchar(50) not null default 'pending',
  agent_output jsonb,
  priority integer not null default 0,
  created_at timestamptz not null default public.reactive_worker_now(),
  updated_at timestamptz not null default public.reactive_worker_now(),
  started_at timestamptz,
  completed_at timestamptz,
  -- Not before this moment: delay, schedule and backoff are the same thing.
  available_at timestamptz not null default public.reactive_worker_now(),
  -- Fencing token: grows with every claim, never resets.
  attempt integer not null default 0,
  -- Retry budget: spent by failures, reset when a person answers. Must not be the fencing token, or a conversation
  -- of four turns would use up a budget of three.
  failures integer not null default 0,
  max_failures integer not null default 3,
  timeout_seconds integer,
  -- Who holds the task while it is in progress; who ran it once it has ended. No foreign key: workers come and go.
  worker_id uuid,
  cancel_requested_at timestamptz,
  cancel_reason text,
  context_id varchar(255),
  -- The exact A2A state; agent_status is coarser.
  task_state varchar(50) default 'TASK_STATE_SUBMITTED',
  idempotency_key text,
  owner_id uuid default auth.uid(),
  error jsonb,
  constraint todolist_agent_status_known check (
    agent_status in ('pending', 'in_progress', 'input_required', 'completed', 'failed', 'cancelled')),
  constraint todolist_attempt_not_negative check (attempt >= 0),
  constraint todolist_failures_not_negative check (failures >= 0),
  constraint todolist_max_failures_positive check (max_failures >= 1),
  constraint todolist_timeout_positive check (timeout_seconds > 0),
  -- 255 characters always fit into an index entry.
  constraint todolist_idempotency_key_length check (char_length(idempotency_key) between 1 and 255)
);
comment on table public.todolist is 'Tasks: one row is one task, and the truth about it.';

create table if not exists public.events (
  id uuid primary key default public.reactive_worker_uuid(),
  todolist_id uuid not null references public.todolist (id) on delete cascade,
  event_type varchar(50) not null,
  event_data jsonb not null,
  context_id varchar(255),
  task_id varchar(255),
  message text,
  created_at timestamptz not null default public.reactive_worker_now(),
  seq bigint not null,
  attempt integer,
  worker_id uuid,
  -- Also the index of the foreign key, and of every read "what came after number n".
  constraint events_todolist_id_seq_key unique (todolist_id, seq),
  constraint events_seq_positive check (seq >= 1)
);
comment on table public.events is 'The log of each task, numbered by seq without a gap. Written by the functions only.';

create table public.workers (
  id uuid primary key,
  name text not null default '',
  agent_types text[] not null default '{}',
  concurrency integer not null default 1,
  started_at timestamptz not null default public.reactive_worker_now(),
  heartbeat_at timestamptz not null default public.reactive_worker_now(),
  -- 'epoch' once a reclaim has begun to put this worker's tasks back: from there no heartbeat leads back.
  lease_until timestamptz not null,
  -- Since when the lease has been held without a break: who may call others dead (see reclaim).
  alive_since timestamptz not null default public.reactive_worker_now(),
  info jsonb not null default '{}',
  -- How many tasks were in flight when this worker was called dead: 1 is known to have been alone, 2 means two or more,
  -- 0 that it had left by itself. Null while it lives.
  lost_runs integer,
  constraint workers_concurrency_positive check (concurrency >= 1)
)
-- Heartbeats rewrite a few columns of a small row for ever. Without an index on lease_until and with half of each
-- page free they are HOT updates, cleaned up in passing; a sweep reads these few pages faster than it would an
-- index.
with (fillfactor = 50);
comment on table public.workers is 'Running workers and their leases.';

create table public.worker_mailbox (
  worker_id uuid primary key references public.workers (id) on delete cascade,
  desired_state text not null default 'running',
  signal_at timestamptz,
  probe_at timestamptz,
  constraint worker_mailbox_desired_state_known check (desired_state in ('running', 'paused', 'draining'))
) with (fillfactor = 50);
comment on table public.worker_mailbox is 'Published rows that wake workers: control channel and probe of push.';

-- INDEXES

-- What a sweep reads: best first within one agent type. Only waiting rows are in it, so ten million finished ones
-- cost nothing.
create index todolist_pending_best_idx on public.todolist (agent_type, priority desc, available_at, id)
  where agent_status = 'pending';

-- When does the next one fall due, and are there only a few due ones among millions scheduled for later? The index
-- above cannot tell without walking every priority.
create index todolist_pending_due_idx on public.todolist (agent_type, available_at)
  where agent_status = 'pending';

-- What a fair sweep reads: the best of each owner. No owner (a back end's own task) is the zero uuid, because a search
-- for "nobody or this one" cannot use an index.
create index todolist_pending_owner_idx on public.todolist
  (agent_type, coalesce(owner_id, '00000000-0000-0000-0000-000000000000'), priority desc, available_at, id)
  where agent_status = 'pending';

-- What does this worker hold; who holds anything; what is held by nobody.
create index todolist_held_idx on public.todolist (worker_id) where agent_status = 'in_progress';

-- What somebody set back to pending by hand while a worker was running it (see claim_todos): hardly ever anything.
create index todolist_taken_back_idx on public.todolist (worker_id)
  where agent_status = 'pending' and worker_id is not null;

-- One task per key, agent type and owner; a task without an owner (service role) counts as one owner.
create unique index todolist_idempotency_idx on public.todolist (agent_type, idempotency_key, owner_id)
  nulls not distinct where idempotency_key is not null;

-- Counting for todo_stats without reading the rows. The type comes first on purpose: beginning with the status, this
-- index would look fit for finding what is in progress, and it keeps a dead entry for every claim since the last
-- vacuum.
create index todolist_counts_idx on public.todolist (agent_type, agent_status);

-- The failed ones, newest first: the list a person works through.
create index todolist_failed_idx on public.todolist (created_at) where agent_status = 'failed';

-- Newest first, for lists: all, and one's own under row level security.
create index todolist_created_idx on public.todolist (created_at);
create index todolist_owner_idx on public.todolist (owner_id, created_at) where owner_id is not null;
create index events_created_idx on public.events (created_at);

-- Each task is updated at least twice (claim, finish), and no status change can be a HOT update, because
-- agent_status decides which partial index a row is in. Dead versions gather exactly where sweeps begin to read: at
-- the best end of the pending index. The default (vacuum after 20 % of the table has changed) would let a table of
-- ten million collect two million of them; 1 % keeps that end short. (Nothing helps while some transaction stays
-- open for long: each thousand tasks run meanwhile make a sweep about a millisecond slower.) fillfactor stays at
-- 100: room on the page saves nothing without HOT (measured: 3.8 kB of WAL for the claim and end of a task with
-- 100, 85 and 60).
alter table public.todolist set (
  autovacuum_vacuum_scale_factor = 0.01,
  autovacuum_vacuum_threshold = 500,
  autovacuum_vacuum_insert_scale_factor = 0.02,
  autovacuum_analyze_scale_factor = 0.02
);
-- Events are only ever added: vacuum for the visibility map and fresh statistics, no room for updates.
alter table public.events set (
  autovacuum_vacuum_insert_scale_factor = 0.05,
  autovacuum_analyze_scale_factor = 0.05
);

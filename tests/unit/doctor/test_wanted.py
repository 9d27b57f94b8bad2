"""Reading migrations: what their statements make."""

from __future__ import annotations

from reactive_worker.doctor.wanted import read

MIGRATION = """
create table public.things (
  id uuid primary key
);
create function public.do_it(p_id uuid, p_at timestamptz default null) returns jsonb
language plpgsql
set search_path = ''
as $$
begin
  return '{}'; -- create trigger not_this on public.things;
end
$$;
create trigger things_fill_in before insert on public.things
  for each row execute function public.fill_in();
alter table public.things enable row level security;
grant select, insert on table public.things to authenticated;
grant select (id,
  -- why
  name) on table public.things to reactive_worker;
grant execute on function
  public.do_it(uuid, timestamp with time zone)
  to service_role, reactive_worker;
alter function public.do_it(uuid, timestamp with time zone) security definer;
create policy "mine; all mine" on public.things
  for select to authenticated using (true);
do $$
begin
    create policy "indented" on realtime.messages
      for select to reactive_worker
      using (true);
end
$$;
"""


def test_every_kind_of_statement() -> None:
    made = read(["1"], [MIGRATION])
    assert made.tables == ["things"]
    assert made.rls == {"things"}
    [(signature, function)] = made.functions.items()
    assert signature == "public.do_it(uuid, timestamp with time zone)"
    assert function.security_definer
    assert function.roles == {"service_role", "reactive_worker"}
    assert function.create.endswith("$$;")
    assert made.grants == {("things", "authenticated"): {"select", "insert"}}
    assert made.column_grants == {("things", "reactive_worker", "select"): {"id", "name"}}
    assert list(made.triggers) == [("things", "things_fill_in")]
    assert list(made.policies) == [("things", "mine; all mine"), ("realtime.messages", "indented")]
    assert made.policies[("realtime.messages", "indented")].startswith("create policy")

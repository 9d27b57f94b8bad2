-- What a fresh Supabase database contains before any migration: roles, schemas, auth.* functions,
-- privileges and the Realtime publication. Run as supabase_admin, in one transaction, once per database.
-- Roles belong to the whole server, so creating them is repeatable.

-- The passwords below are public anyway, and fewer rounds make logins faster (a setting since 16).
select pg_catalog.set_config('scram_iterations', '64', true)
where pg_catalog.current_setting('server_version_num')::int >= 160000;

do $roles$
declare
  wanted record;
begin
  for wanted in
    select * from (values
      ('anon', 'nologin inherit'),
      ('authenticated', 'nologin inherit'),
      ('service_role', 'nologin inherit bypassrls'),
      ('authenticator', 'login noinherit password ''postgres'''),
      -- Hosted projects do not give their owner a superuser either: what works here works there.
      ('postgres', 'login inherit createdb createrole replication bypassrls password ''postgres'''),
      ('dashboard_user', 'nologin createdb createrole replication'),
      ('pgbouncer', 'nologin'),
      ('supabase_auth_admin', 'nologin noinherit createrole'),
      ('supabase_storage_admin', 'nologin noinherit'),
      ('supabase_realtime_admin', 'nologin noinherit'),
      ('supabase_replication_admin', 'nologin replication'),
      ('supabase_read_only_user', 'nologin bypassrls')
    ) as roles (name, attributes)
  loop
    if not exists (select from pg_catalog.pg_roles where rolname = wanted.name) then
      execute pg_catalog.format('create role %I %s', wanted.name, wanted.attributes);
    end if;
  end loop;
end
$roles$;

grant anon, authenticated, service_role to authenticator;
grant anon, authenticated, service_role, authenticator to postgres with admin option;
grant pg_monitor, pg_read_all_data, pg_signal_backend to postgres with admin option;
grant pg_read_all_data to supabase_read_only_user;

alter role anon set statement_timeout = '3s';
alter role authenticated set statement_timeout = '8s';
alter role authenticator set statement_timeout = '8s';
alter role authenticator set lock_timeout = '8s';
alter role postgres set search_path = "$user", public, extensions;
alter role supabase_admin set search_path = "$user", public, auth, extensions;

-- What a project's owner sets for the API server at the role authenticator, as a hosted project lets it.
do $settings$
declare
  setting text;
begin
  foreach setting in array array[
    'app_settings', 'client_error_verbosity', 'db_aggregates_enabled', 'db_anon_role', 'db_extra_search_path',
    'db_hoisted_tx_settings', 'db_max_rows', 'db_plan_enabled', 'db_pre_request', 'db_prepared_statements',
    'db_root_spec', 'db_schemas', 'db_tx_end', 'jwt_aud', 'jwt_cache_max_lifetime', 'jwt_role_claim_key', 'log_level',
    'openapi_mode', 'openapi_security_active', 'openapi_server_proxy_uri', 'server_cors_allowed_origins',
    'server_timing_enabled', 'server_trace_header'
  ] loop
    -- Rights on parameters belong to the whole server as well.
    if not pg_catalog.has_parameter_privilege('postgres', 'pgrst.' || setting, 'SET') then
      execute pg_catalog.format('grant set on parameter %I.%I to postgres', 'pgrst', setting);
    end if;
  end loop;
end
$settings$;

do $database$
begin
  execute pg_catalog.format('alter database %I owner to postgres', pg_catalog.current_database());
  execute pg_catalog.format(
    'grant all on database %I to dashboard_user', pg_catalog.current_database());
end
$database$;

-- Since May 2026 new projects grant nothing on new tables and functions: migrations must do so themselves.
-- Only the schema itself can be used by the API roles.
grant usage on schema public to postgres, anon, authenticated, service_role;

create schema if not exists extensions;
grant usage on schema extensions to postgres, anon, authenticated, service_role;
grant all on schema extensions to postgres, dashboard_user;

create schema if not exists auth authorization supabase_auth_admin;
create schema if not exists storage authorization supabase_storage_admin;
create schema if not exists realtime authorization supabase_realtime_admin;
create schema if not exists graphql_public;
create schema if not exists vault;
grant usage on schema auth, storage, realtime, graphql_public
  to postgres, anon, authenticated, service_role;

do $extensions$
declare
  wanted text;
begin
  -- The server from the wheel comes without these two; one from a distribution has them.
  foreach wanted in array array['pgcrypto', 'uuid-ossp'] loop
    if exists (select from pg_catalog.pg_available_extensions where name = wanted) then
      execute pg_catalog.format('create extension if not exists %I with schema extensions', wanted);
    elsif wanted = 'uuid-ossp' then
      -- What projects use of it.
      execute 'create or replace function extensions.uuid_generate_v4() returns uuid language sql volatile'
        ' parallel safe as ''select pg_catalog.gen_random_uuid()''';
      execute 'grant execute on function extensions.uuid_generate_v4() to public';
    end if;
  end loop;
end
$extensions$;

-- A user of the project, as far as foreign keys and policies need one; auth/schema.sql adds the rest.
create table if not exists auth.users (
  instance_id uuid,
  id uuid primary key,
  aud varchar(255),
  role varchar(255),
  email varchar(255),
  encrypted_password varchar(255),
  email_confirmed_at timestamptz,
  last_sign_in_at timestamptz,
  raw_app_meta_data jsonb,
  raw_user_meta_data jsonb,
  phone text,
  created_at timestamptz default now(),
  updated_at timestamptz default now()
);
alter table auth.users owner to supabase_auth_admin;
alter table auth.users enable row level security;
grant all on auth.users to postgres, dashboard_user;

-- Each claim is looked for in its own setting first (older API servers), then in the JSON of all claims.
create or replace function auth.uid() returns uuid language sql stable as $$
  select coalesce(
    nullif(current_setting('request.jwt.claim.sub', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
  )::uuid
$$;

create or replace function auth.role() returns text language sql stable as $$
  select coalesce(
    nullif(current_setting('request.jwt.claim.role', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role'
  )
$$;

create or replace function auth.email() returns text language sql stable as $$
  select coalesce(
    nullif(current_setting('request.jwt.claim.email', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'email'
  )
$$;

create or replace function auth.jwt() returns jsonb language sql stable as $$
  select coalesce(
    nullif(current_setting('request.jwt.claim', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')
  )::jsonb
$$;

alter function auth.uid() owner to supabase_auth_admin;
alter function auth.role() owner to supabase_auth_admin;
alter function auth.email() owner to supabase_auth_admin;
alter function auth.jwt() owner to supabase_auth_admin;

do $publication$
begin
  if not exists (select from pg_catalog.pg_publication where pubname = 'supabase_realtime') then
    create publication supabase_realtime;
  end if;
end
$publication$;
alter publication supabase_realtime owner to postgres;

-- The REST gateway caches what the catalog says; DDL tells it to look again.
create or replace function extensions.pgrst_ddl_watch() returns event_trigger
language plpgsql as $$
begin
  if exists (
    select from pg_event_trigger_ddl_commands() as command
    where command.schema_name is distinct from 'pg_temp'
  ) then
    notify pgrst, 'reload schema';
  end if;
end
$$;

create or replace function extensions.pgrst_drop_watch() returns event_trigger
language plpgsql as $$
begin
  if exists (select from pg_event_trigger_dropped_objects() as object where not object.is_temporary) then
    notify pgrst, 'reload schema';
  end if;
end
$$;

drop event trigger if exists pgrst_ddl_watch;
create event trigger pgrst_ddl_watch on ddl_command_end execute function extensions.pgrst_ddl_watch();
drop event trigger if exists pgrst_drop_watch;
create event trigger pgrst_drop_watch on sql_drop execute function extensions.pgrst_drop_watch();

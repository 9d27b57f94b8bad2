-- Statements of the auth server, run as supabase_auth_admin. Each begins with its name.

-- name: settings
select pg_catalog.set_config('role', 'supabase_auth_admin', true),
  pg_catalog.set_config('search_path', 'auth', true), pg_catalog.set_config('timezone', 'UTC', true)

-- name: create_user
insert into auth.users (
  instance_id, id, aud, role, email, encrypted_password, raw_app_meta_data, raw_user_meta_data,
  confirmation_token, recovery_token, email_change_token_new, email_change, is_anonymous, created_at, updated_at
) values (
  '00000000-0000-0000-0000-000000000000', $1::uuid, 'authenticated', 'authenticated', $2, $3, $4::jsonb, $5::jsonb,
  '', '', '', '', $6::boolean, now(), now()
)

-- name: create_identity
insert into auth.identities (provider_id, user_id, identity_data, provider, last_sign_in_at, created_at, updated_at)
values ($1::text, $1::text::uuid, $2::jsonb, 'email', now(), now(), now())

-- name: change_identity
update auth.identities set identity_data = identity_data || $2::jsonb, updated_at = now()
where user_id = $1::uuid and provider = 'email'

-- name: confirm_email
update auth.users set email_confirmed_at = coalesce(email_confirmed_at, now()), updated_at = now() where id = $1::uuid

-- name: user
select pg_catalog.to_jsonb(u) || pg_catalog.jsonb_build_object('identities', (
  select coalesce(pg_catalog.jsonb_agg(pg_catalog.to_jsonb(i) order by i.created_at), '[]')
  from auth.identities i where i.user_id = u.id
)) from auth.users u where u.id = $1::uuid and u.deleted_at is null

-- name: user_by_email
select pg_catalog.jsonb_build_object('id', u.id, 'encrypted_password', u.encrypted_password,
  'email_confirmed_at', u.email_confirmed_at, 'banned', coalesce(u.banned_until > now(), false))
from auth.users u
where lower(u.email) = lower($1) and not u.is_sso_user and u.deleted_at is null

-- name: users
select pg_catalog.to_jsonb(u) || pg_catalog.jsonb_build_object('identities', (
  select coalesce(pg_catalog.jsonb_agg(pg_catalog.to_jsonb(i) order by i.created_at), '[]')
  from auth.identities i where i.user_id = u.id
)) from auth.users u where u.deleted_at is null order by u.created_at desc, u.id limit $1::bigint offset $2::bigint

-- name: count_users
select pg_catalog.to_jsonb(pg_catalog.count(*)) from auth.users where deleted_at is null

-- name: delete_user
delete from auth.users where id = $1::uuid returning pg_catalog.to_jsonb(id)

-- name: change_user
update auth.users set
  email = coalesce($2::text, email),
  encrypted_password = coalesce($3::text, encrypted_password),
  raw_user_meta_data = pg_catalog.jsonb_strip_nulls(coalesce(raw_user_meta_data, '{}') || coalesce($4::jsonb, '{}')),
  raw_app_meta_data = pg_catalog.jsonb_strip_nulls(coalesce(raw_app_meta_data, '{}') || coalesce($5::jsonb, '{}')),
  is_anonymous = is_anonymous and $2::text is null,
  role = coalesce($6::text, role),
  updated_at = now()
where id = $1::uuid returning pg_catalog.to_jsonb(id)

-- name: sign_in
update auth.users set last_sign_in_at = now(), updated_at = now() where id = $1::uuid

-- name: create_session
insert into auth.sessions (id, user_id, created_at, updated_at, aal, user_agent)
values ($1::uuid, $2::uuid, now(), now(), 'aal1', $3)

-- name: session
select pg_catalog.to_jsonb(s.id) from auth.sessions s where s.id = $1::uuid and s.user_id = $2::uuid

-- name: create_token
insert into auth.refresh_tokens (instance_id, token, user_id, revoked, created_at, updated_at, parent, session_id)
values ('00000000-0000-0000-0000-000000000000', $1, $2, false, now(), now(), $3, $4::uuid)

-- name: token
select pg_catalog.jsonb_build_object(
  'token', t.token, 'user_id', t.user_id, 'session_id', t.session_id, 'revoked', t.revoked,
  'seconds', extract(epoch from now() - t.updated_at)::float8,
  'current', (select c.token from auth.refresh_tokens c where c.session_id = t.session_id and not c.revoked
    order by c.id desc limit 1)
) from auth.refresh_tokens t where t.token = $1

-- name: revoke_token
update auth.refresh_tokens set revoked = true, updated_at = now()
where token = $1 and not revoked returning pg_catalog.to_jsonb(token)

-- name: refresh_session
update auth.sessions set refreshed_at = now() at time zone 'UTC', updated_at = now() where id = $1::uuid

-- name: end_session
delete from auth.sessions where id = $1::uuid

-- name: end_all_sessions
delete from auth.sessions where user_id = $1::uuid

-- name: end_other_sessions
delete from auth.sessions where user_id = $1::uuid and id <> $2::uuid

-- name: crypt
select pg_catalog.to_jsonb(extensions.crypt($1::text, $2::text) = $2::text)

"""Sign-in: supabase-py and the wire against ``/auth/v1``."""

from __future__ import annotations

import contextlib
import dataclasses
import uuid
from collections.abc import Callable, Generator
from typing import Any

import httpx
import jwt
import psycopg
import pytest
from supabase import Client, create_client
from supabase.lib.client_options import SyncClientOptions
from supabase_auth.errors import AuthApiError, AuthWeakPasswordError

from reactive_worker.local.gateway import Gateway
from reactive_worker.local.postgres import Cluster
from reactive_worker.local.project import AuthSettings, find_project
from tests.integration.local.conftest import Api

PASSWORD = "correct horse"

_SCHEMA = """
create table diary (id int primary key,
  owner_id uuid default auth.uid() references auth.users on delete cascade,
  line text);
alter table diary enable row level security;
create policy own on diary to authenticated using ((select auth.uid()) = owner_id)
  with check ((select auth.uid()) = owner_id and (auth.jwt() ->> 'is_anonymous')::boolean is false);
grant select, insert on diary to authenticated;
create table profiles_of_users (id uuid primary key references auth.users on delete cascade, name text);
grant select on profiles_of_users to service_role;
create function on_sign_up() returns trigger language plpgsql security definer set search_path = '' as $$
begin
  if new.raw_user_meta_data ->> 'name' = 'nobody' then
    raise exception 'no such name';
  end if;
  insert into public.profiles_of_users (id, name) values (new.id, new.raw_user_meta_data ->> 'name');
  return new;
end
$$;
create trigger on_sign_up after insert on auth.users for each row execute function on_sign_up();
"""


@pytest.fixture(scope="module")
def api(pg_cluster: Cluster, pg_template: str) -> Generator[Api]:
    """A gateway whose project lets users sign in anonymously."""
    name = f"auth_{uuid.uuid4().hex[:8]}"
    pg_cluster.create_database(name, pg_template)
    project = dataclasses.replace(find_project(), auth=AuthSettings(anonymous=True))
    with psycopg.connect(pg_cluster.dsn(name), autocommit=True) as connection:
        connection.execute(_SCHEMA)
        gateway = Gateway(project=project)
        gateway.start(
            db_url=pg_cluster.dsn(name),
            authenticator_dsn=pg_cluster.dsn(name, "authenticator"),
            admin_dsn=pg_cluster.admin_dsn(name),
        )
        api = Api(gateway, connection)
        yield api
        api.close()
        gateway.stop()
    pg_cluster.drop_database(name)


@pytest.fixture
def connect(api: Api) -> Generator[Callable[..., Client]]:
    """Makes clients, of nobody who has signed in."""
    with contextlib.ExitStack() as stack:

        def make(key: str = api.gateway.publishable_key) -> Client:
            # One for all of a client's parts, which it makes anew with every sign-in.
            http = stack.enter_context(httpx.Client())
            return create_client(api.gateway.api_url, key, SyncClientOptions(httpx_client=http))

        yield make


@pytest.fixture
def client(connect: Callable[..., Client]) -> Client:
    """A client that nobody has signed in with."""
    return connect()


def address() -> str:
    return f"{uuid.uuid4().hex}@example.org"


def sign_up(client: Client, **data: Any) -> Any:
    options = {"data": data} if data else {}
    return client.auth.sign_up({"email": address(), "password": PASSWORD, "options": options})  # type: ignore[typeddict-item]


def raw(api: Api, method: str, path: str, token: str | None = None, **options: Any) -> httpx.Response:
    headers = {"apikey": api.gateway.publishable_key, **options.pop("headers", {})}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    return httpx.request(method, f"{api.gateway.api_url}/auth/v1{path}", headers=headers, **options)


def test_a_user_signs_up_and_is_signed_in(api: Api, client: Client) -> None:
    made = sign_up(client, name="Ada")
    user, session = made.user, made.session
    assert (user.role, user.aud, user.is_anonymous) == ("authenticated", "authenticated", False)
    assert user.email_confirmed_at is not None
    assert user.app_metadata == {"provider": "email", "providers": ["email"]}
    assert user.user_metadata["name"] == "Ada"
    assert [each.provider for each in user.identities] == ["email"]
    claims = jwt.decode(session.access_token, api.gateway.jwt_secret, ["HS256"], audience="authenticated")
    assert claims["iss"] == f"{api.gateway.api_url}/auth/v1"
    assert (claims["sub"], claims["role"], claims["email"]) == (user.id, "authenticated", user.email)
    assert (claims["aal"], claims["amr"][0]["method"], claims["is_anonymous"]) == ("aal1", "password", False)
    assert claims["exp"] - claims["iat"] == session.expires_in == 3600
    # The project's trigger on auth.users has run.
    assert api.rows(f"select name from profiles_of_users where id = '{user.id}'") == [("Ada",)]


def test_policies_know_who_is_signed_in(api: Api, client: Client, connect: Callable[..., Client]) -> None:
    user = sign_up(client).user
    other = connect()
    sign_up(other)
    number = int(api.rows("select count(*) + 1 from diary")[0][0])
    made = client.table("diary").insert({"id": number, "line": "mine"}).execute().data
    assert made == [{"id": number, "owner_id": user.id, "line": "mine"}]
    assert other.table("diary").select("*").eq("id", number).execute().data == []
    client.auth.sign_out()
    with pytest.raises(Exception, match="permission denied"):
        client.table("diary").select("*").execute()


def test_password_sign_in(client: Client) -> None:
    email = address()
    client.auth.sign_up({"email": email.upper(), "password": PASSWORD})
    client.auth.sign_out()
    again = client.auth.sign_in_with_password({"email": email, "password": PASSWORD})
    assert again.user is not None
    assert again.user.email == email
    for wrong in ({"email": email, "password": "wrong one"}, {"email": address(), "password": PASSWORD}):
        with pytest.raises(AuthApiError) as caught:
            client.auth.sign_in_with_password(wrong)  # type: ignore[arg-type]
        assert (caught.value.status, caught.value.code) == (400, "invalid_credentials")
        assert caught.value.message == "Invalid login credentials"


def test_an_address_is_for_one_user(client: Client) -> None:
    email = address()
    client.auth.sign_up({"email": email, "password": PASSWORD})
    with pytest.raises(AuthApiError) as caught:
        client.auth.sign_up({"email": email, "password": PASSWORD})
    assert (caught.value.status, caught.value.code) == (422, "user_already_exists")


def test_weak_passwords_are_refused(client: Client) -> None:
    with pytest.raises(AuthWeakPasswordError) as caught:
        client.auth.sign_up({"email": address(), "password": "short"})
    assert caught.value.reasons == ["length"]


def test_anonymous_sign_in(api: Api, client: Client) -> None:
    made = client.auth.sign_in_anonymously()
    assert made.user is not None
    assert made.session is not None
    assert (made.user.is_anonymous, made.user.role, made.user.email) == (True, "authenticated", "")
    claims = jwt.decode(made.session.access_token, options={"verify_signature": False})
    assert (claims["is_anonymous"], claims["amr"][0]["method"]) == (True, "anonymous")
    with pytest.raises(Exception, match="row-level security"):
        client.table("diary").insert({"id": 900, "line": "x"}).execute()
    # It becomes a user with an address, and stays the same one.
    email = address()
    changed = client.auth.update_user({"email": email, "password": PASSWORD})
    assert (changed.user.id, changed.user.is_anonymous, changed.user.email) == (made.user.id, False, email)
    assert [each.provider for each in changed.user.identities or ()] == ["email"]
    again = client.auth.sign_in_with_password({"email": email, "password": PASSWORD})
    assert again.user is not None
    assert again.user.id == made.user.id


def test_what_a_project_does_not_allow_is_refused(api: Api, pg_cluster: Cluster) -> None:
    project = dataclasses.replace(find_project(), auth=AuthSettings(signup=False))
    name = api.connection.info.dbname
    for settings, body, code in (
        (AuthSettings(), {}, "anonymous_provider_disabled"),
        (AuthSettings(signup=False), {"email": address(), "password": PASSWORD}, "signup_disabled"),
        (AuthSettings(confirmations=True), {"email": address(), "password": PASSWORD}, None),
    ):
        gateway = Gateway(project=dataclasses.replace(project, auth=settings))
        gateway.start(
            db_url=pg_cluster.dsn(name),
            authenticator_dsn=pg_cluster.dsn(name, "authenticator"),
            admin_dsn=pg_cluster.admin_dsn(name),
        )
        headers = {"apikey": gateway.publishable_key}
        answer = httpx.post(f"{gateway.api_url}/auth/v1/signup", json=body, headers=headers)
        if code is not None:
            assert (answer.status_code, answer.json()["error_code"]) == (422, code)
        else:
            # Nobody sends a mail here: there is a user, and no session.
            assert "access_token" not in answer.json()
            grant = f"{gateway.api_url}/auth/v1/token?grant_type=password"
            answer = httpx.post(grant, json=body, headers=headers)
            assert (answer.status_code, answer.json()["error_code"]) == (400, "email_not_confirmed")
        gateway.stop()


def test_refresh_tokens_are_good_once(api: Api, client: Client) -> None:
    session = sign_up(client).session
    fresh = client.auth.refresh_session(session.refresh_token).session
    assert fresh is not None
    assert fresh.refresh_token != session.refresh_token
    assert fresh.user.id == session.user.id
    # Two tabs that refresh at once get the same token.
    body = {"refresh_token": session.refresh_token}
    twice = raw(api, "POST", "/token?grant_type=refresh_token", json=body)
    assert twice.json()["refresh_token"] == fresh.refresh_token
    # Later it is a stolen one, and the session ends.
    api.connection.execute(
        "update auth.refresh_tokens set updated_at = now() - interval '1 minute' where token = %s",
        (session.refresh_token,),
    )
    stolen = raw(api, "POST", "/token?grant_type=refresh_token", json=body)
    assert (stolen.status_code, stolen.json()["error_code"]) == (400, "refresh_token_already_used")
    body = {"refresh_token": fresh.refresh_token}
    gone = raw(api, "POST", "/token?grant_type=refresh_token", json=body)
    assert (gone.status_code, gone.json()["error_code"]) == (400, "refresh_token_not_found")


def test_a_user_reads_and_changes_itself(client: Client) -> None:
    email = sign_up(client, name="Bob").user.email
    found = client.auth.get_user()
    assert found is not None
    assert found.user.email == email
    changed = client.auth.update_user({"data": {"name": "Bobby", "color": "blue"}})
    assert {"name": "Bobby", "color": "blue"}.items() <= changed.user.user_metadata.items()
    client.auth.update_user({"password": "another horse"})
    with pytest.raises(AuthApiError) as caught:
        client.auth.update_user({"password": "another horse"})
    assert (caught.value.status, caught.value.code) == (422, "same_password")
    assert client.auth.sign_in_with_password({"email": email, "password": "another horse"}).session


@pytest.mark.parametrize(("scope", "left"), [("global", []), ("local", ["other"]), ("others", ["this"])])
def test_signing_out_ends_sessions(api: Api, client: Client, scope: str, left: list[str]) -> None:
    made = sign_up(client)
    grant = {"email": made.user.email, "password": PASSWORD}
    other = raw(api, "POST", "/token?grant_type=password", json=grant).json()["access_token"]
    tokens = {"this": made.session.access_token, "other": other}
    assert raw(api, "POST", f"/logout?scope={scope}", tokens["this"]).status_code == 204
    answers = {name: raw(api, "GET", "/user", token) for name, token in tokens.items()}
    assert [name for name, answer in answers.items() if answer.status_code == 200] == left
    for name, answer in answers.items():
        if name not in left:
            assert (answer.status_code, answer.json()["error_code"]) == (403, "session_not_found")


def test_errors_have_the_form_the_client_asks_for(api: Api) -> None:
    grant = {"email": address(), "password": "x"}
    old = raw(api, "POST", "/token?grant_type=password", json=grant)
    assert old.json() == {
        "code": 400,
        "error_code": "invalid_credentials",
        "msg": "Invalid login credentials",
    }
    headers = {"X-Supabase-Api-Version": "2024-01-01"}
    new = raw(api, "POST", "/token?grant_type=password", json=grant, headers=headers)
    assert new.json() == {"code": "invalid_credentials", "message": "Invalid login credentials"}
    assert old.headers["x-sb-error-code"] == new.headers["x-sb-error-code"] == "invalid_credentials"


@pytest.mark.parametrize(
    ("method", "path", "token", "status", "code"),
    [
        ("GET", "/user", None, 401, "no_authorization"),
        ("GET", "/user", "nonsense", 403, "bad_jwt"),
        ("GET", "/user", "user who never was", 403, "user_not_found"),
        ("POST", "/signup", None, 400, "validation_failed"),
        ("POST", "/token?grant_type=refresh_token", None, 400, "validation_failed"),
        ("POST", "/token?grant_type=wish", None, 400, "invalid_credentials"),
        ("POST", "/logout?scope=some", None, 400, "validation_failed"),
        ("GET", "/admin/users", None, 403, "not_admin"),
        ("POST", "/otp", None, 501, "feature_disabled"),
        ("POST", "/recover", None, 501, "feature_disabled"),
        ("GET", "/authorize?provider=github", None, 501, "feature_disabled"),
        ("POST", "/factors", None, 501, "feature_disabled"),
        ("POST", "/token?grant_type=pkce", None, 501, "feature_disabled"),
    ],
)
def test_what_is_refused(api: Api, method: str, path: str, token: str | None, status: int, code: str) -> None:
    if token == "user who never was":
        token = api.gateway.keys.mint_user(str(uuid.uuid4()))
    body = {"email": "no address"} if method == "POST" else None
    answer = raw(api, method, path, token, json=body)
    assert (answer.status_code, answer.json()["error_code"]) == (status, code), answer.text


def test_a_trigger_can_refuse_a_user(api: Api) -> None:
    body = {"email": address(), "password": PASSWORD, "data": {"name": "nobody"}}
    answer = raw(api, "POST", "/signup", json=body)
    assert (answer.status_code, answer.json()["msg"]) == (500, "Database error saving new user")
    assert raw(api, "POST", "/token?grant_type=password", json=body).status_code == 400


def test_without_a_key_there_is_no_way_in(api: Api) -> None:
    url = f"{api.gateway.api_url}/auth/v1"
    assert httpx.post(f"{url}/signup", json={}).status_code == 401
    assert httpx.get(f"{url}/health").status_code == 401
    # Only the public keys are for everybody: none, as tokens are signed with the shared secret.
    assert httpx.get(f"{url}/.well-known/jwks.json").json() == {"keys": []}
    assert raw(api, "GET", "/health").json()["name"] == "GoTrue"
    assert raw(api, "GET", "/settings").json()["external"]["anonymous_users"] is True


def test_the_service_role_keeps_users(api: Api, connect: Callable[..., Client]) -> None:
    admin = connect(api.gateway.service_role_key).auth.admin
    email = address()
    made = admin.create_user(
        {"email": email, "password": PASSWORD, "email_confirm": True, "app_metadata": {"tenant": "a"}}
    ).user
    assert made.app_metadata["tenant"] == "a"
    assert email in [user.email for user in admin.list_users()]
    changed = admin.update_user_by_id(made.id, {"app_metadata": {"tenant": "b"}, "user_metadata": {"x": 1}})
    assert (changed.user.app_metadata["tenant"], changed.user.user_metadata["x"]) == ("b", 1)
    assert admin.get_user_by_id(made.id).user.email == email
    signed_in = raw(api, "POST", "/token?grant_type=password", json={"email": email, "password": PASSWORD})
    claims = jwt.decode(signed_in.json()["access_token"], options={"verify_signature": False})
    assert claims["app_metadata"]["tenant"] == "b"
    admin.delete_user(made.id)
    assert raw(api, "GET", "/user", signed_in.json()["access_token"]).status_code == 403
    assert api.rows(f"select 1 from auth.users where id = '{made.id}'") == []


def test_users_can_be_made_by_sql(api: Api) -> None:
    """As seeds do it; the columns are those of the CLI."""
    id, email = str(uuid.uuid4()), address()
    api.connection.execute(
        "insert into auth.users (instance_id, id, aud, role, email, encrypted_password, email_confirmed_at,"
        " raw_app_meta_data, raw_user_meta_data, created_at, updated_at, confirmation_token, recovery_token,"
        " email_change_token_new, email_change) values ('00000000-0000-0000-0000-000000000000', %s,"
        " 'authenticated', 'authenticated', %s, '', now(), '{}', '{}', now(), now(), '', '', '', '')",
        (id, email),
    )
    assert api.rows(f"select confirmed_at is not null, is_anonymous from auth.users where id = '{id}'") == [
        (True, False)
    ]
    answer = raw(api, "POST", "/token?grant_type=password", json={"email": email, "password": "x"})
    assert answer.json()["error_code"] == "invalid_credentials"

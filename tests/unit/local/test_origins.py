"""Which hosts and origins are this machine."""

from __future__ import annotations

import pytest

from reactive_worker.local.origins import stranger


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:54321",
        "127.0.0.1:54321",
        "127.1.2.3",
        "[::1]:54321",
        "LocalHost.",
        "app.localhost",
    ],
)
def test_hosts_of_this_machine(host: str) -> None:
    assert stranger([(b"host", host.encode())]) is None


@pytest.mark.parametrize(
    "host",
    [
        *(
            "example.org",
            "example.org:54321",
            "localhost.example.org",
            "127.0.0.1.nip.io",
            "192.168.0.1",
            "0.0.0.0",
        ),
        *("127.0.0.1@example.org", "localhost:port", "[::1", "[::2]", "notlocalhost", "2130706433"),
    ],
)
def test_other_hosts(host: str) -> None:
    assert "Host" in (stranger([(b"host", host.encode())]) or "")


@pytest.mark.parametrize(
    ("origin", "ours"),
    [
        ("http://localhost:3000", True),
        ("https://127.0.0.1", True),
        ("http://[::1]:5173", True),
        ("capacitor://localhost", True),
        ("http://tauri.localhost", True),
        ("null", False),
        ("", False),
        ("https://example.org", False),
        ("https://localhost.example.org", False),
        ("https://localhost@example.org", False),
        ("file://", False),
    ],
)
def test_origins(origin: str, ours: bool) -> None:
    headers = [(b"host", b"127.0.0.1:54321"), (b"origin", origin.encode())]
    assert (stranger(headers) is None) is ours


def test_a_program_that_says_nothing_is_let_in() -> None:
    assert stranger([]) is None

"""Signing in, sessions, the page, and the feed from a real Redis."""

import re
import secrets
from typing import Any

import httpx
import pytest
import trio

from cloud.api.feed import Feed
from cloud.api.signin import Door, Tries, Users, user_entry
from cloud.api.ward import COOKIE, FILES
from healthsync.runtime.config import load
from vitals.errors import ConfigError

NOW = 1_790_000_000_000
NO_TOKEN = {"Authorization": ""}


def sign_in(ward: Any, word: str = "open", **headers: str) -> httpx.Response:
    form = {"user": "nurse", "password": word}
    answer: httpx.Response = ward.ask(
        "POST", "/ward/signin", data=form, headers={**NO_TOKEN, **headers}
    )
    return answer


def test_the_right_password_gives_a_session_that_only_this_site_and_tls_can_send(
    ward: Any, make: Any, names: Any
) -> None:
    answer = sign_in(ward)
    assert answer.status_code == 200
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-")
    for word in ("HttpOnly", "Secure", "SameSite=strict", "Path=/", "Max-Age=43200"):
        assert word in cookie
    session = {**NO_TOKEN, "Cookie": cookie.partition(";")[0]}
    assert ward.get("/ward/state", headers=session).json()["user"] == "nurse"
    assert ward.get("/fhir/Patient?_id=x", headers=session).status_code == 401
    ward.now_ms += 12 * 3600_000 + 10_000
    assert ward.get("/ward/state", headers=session).status_code == 401


def test_a_wrong_name_or_password_is_refused_alike(ward: Any) -> None:
    wrong = sign_in(ward, "shut")
    stranger = ward.ask(
        "POST", "/ward/signin", data={"user": "x", "password": "open"}, headers=NO_TOKEN
    )
    assert wrong.status_code == stranger.status_code == 401
    assert wrong.json() == stranger.json()
    assert "set-cookie" not in wrong.headers


def test_tries_are_bounded_and_forgiven() -> None:
    tries = Tries()
    for _ in range(5):
        assert tries.wait_s("10.0.0.1", "nurse", 0.0) == 0
        tries.begun("10.0.0.1", "nurse", 0.0)
    assert tries.wait_s("10.0.0.1", "nurse", 0.0) > 0
    assert tries.wait_s("10.0.0.2", "nurse", 0.0) == 0  # nobody locks the nurse out from elsewhere
    assert tries.wait_s("10.0.0.1", "doctor", 0.0) == 0
    assert tries.wait_s("10.0.0.1", "nurse", 13.0) == 0


def test_too_many_tries_are_answered_with_how_long_to_wait(
    ward: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ward.door, "check", lambda name, password: None)
    for _ in range(5):
        ward.ask("POST", "/ward/signin", data={"user": "y", "password": "z"}, headers=NO_TOKEN)
    answer = ward.ask("POST", "/ward/signin", data={"user": "y", "password": "z"}, headers=NO_TOKEN)
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1


def test_another_site_cannot_sign_anybody_in_or_out(ward: Any) -> None:
    assert sign_in(ward, Origin="https://evil.example").status_code == 403
    assert sign_in(ward, **{"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert sign_in(ward, Origin="https://ward.example").status_code == 200


# httpx's in-process transport leaves its own body iterator open when the answer comes early
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("body", [b"", b"\xff", b"user=" + b"x" * 5000, b"a&b"])
def test_a_form_that_is_none_is_refused(ward: Any, body: bytes) -> None:
    answer = ward.ask("POST", "/ward/signin", content=body, headers=NO_TOKEN)
    assert answer.status_code in {400, 413}
    assert answer.json()["resourceType"] == "OperationOutcome"


def test_state_and_events_need_a_session_or_a_token_with_scopes(ward: Any) -> None:
    for path in ("/ward/state", "/ward/events"):
        assert ward.get(path, headers=NO_TOKEN).status_code == 401
        bad = {**NO_TOKEN, "Cookie": f"{COOKIE}={ward.token()}"}
        assert ward.get(path, headers=bad).status_code == 401
        narrow = {"Authorization": f"Bearer {ward.token(scope='user/Patient.rs')}"}
        assert ward.get(path, headers=narrow).status_code == 403
    assert ward.get("/ward/state").status_code == 200


def test_the_page_has_no_inline_script_no_outside_resource_and_no_data(ward: Any) -> None:
    page = ward.get("/ward", headers=NO_TOKEN)
    policy = page.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|style=", page.text)
    assert "http://" not in page.text
    assert "https://" not in page.text
    for path in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert ward.get(path, headers=NO_TOKEN).status_code == 200
    for name in FILES:
        assert ward.get(f"/ward/static/{name}", headers=NO_TOKEN).status_code == 200
    assert ward.get("/ward/static/..%2fmain.py", headers=NO_TOKEN).status_code == 404


def test_a_users_entry_opens_the_door_it_was_written_for(tmp_path: Any) -> None:
    path = tmp_path / "users.toml"
    path.write_text(user_entry('o"b', "pass", ["ICU"], "user/*.rs", secrets.token_bytes(16)))
    door = Door(load(path, Users))
    user = door.check('o"b', "pass")
    assert user is not None
    assert user.wards == ["ICU"]
    assert door.check('o"b', "pas") is None
    path.write_text(path.read_text() * 2)
    with pytest.raises(ConfigError, match="twice"):
        Door.of_file(path)


def test_the_feed_loads_the_board_then_follows_and_heals_after_redis_was_gone(
    ward: Any, make: Any, names: Any, redis_process: Any
) -> None:
    ada, bea, _ = names
    ward.write(
        ward.identity(ada, "Ada Ng", "ICU", "4", "M1"),
        ward.samples(ada, make("spo2", 90, -20_000), make("spo2", 97)),
    )
    client = redis_process.client()
    feed = Feed(client, ward.store, ward.hub, ward.log, lambda: NOW, lambda: 0.0)

    async def until(condition: Any) -> None:
        with trio.fail_after(10):
            while not condition():  # noqa: ASYNC110 - another thread brings it about
                await trio.sleep(0.01)

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed.run)
            await until(lambda: ward.hub.live)
            bed = ward.hub.board.beds[ada]
            assert [value for _, value in bed.sparks["spo2"]] == [90, 97]
            ward.write(ward.samples(bea, make("spo2", 91)))
            await until(lambda: bea in ward.hub.board.beds)
            await trio.to_thread.run_sync(redis_process.stop)
            await until(lambda: not ward.hub.live)
            await trio.to_thread.run_sync(redis_process.start)
            ward.write(ward.samples(ada, make("spo2", 88, 1000)))  # while nobody listened, perhaps
            await until(lambda: ward.hub.live)
            await until(lambda: bed.shown["spo2"].reading.value == 88)
            nursery.cancel_scope.cancel()

    trio.run(run)
    client.close()

"""The control socket's file is the owner's alone, and its client says why there is no answer."""

import gc
import socket
import stat
from pathlib import Path

import pytest
import trio

from edge import control_path
from edge.control_client import Stream, Unanswered, ask
from tests.edge.test_control import Served, client, request, run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


# -- the file ------------------------------------------------------------------------------------


def test_the_socket_is_the_owners_alone_and_gone_at_the_end(path: Path) -> None:
    modes = []

    async def test(served: Served) -> None:
        modes.append(stat.S_IMODE(served.path.stat().st_mode))

    run(path, test)
    assert modes == [control_path.MODE] == [0o600]
    assert not path.exists()


def test_what_a_crash_left_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as crashed:
        crashed.bind(str(path))

    async def test(served: Served) -> None:
        async with client(path) as stream:
            assert "status" in await request(stream, b'{"get":"status"}')

    assert run(path, test).events() == []


def test_a_live_socket_is_left_alone(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()

        async def test(served: Served) -> None:
            pass

        [event] = run(path, test).events()
        assert (event["event"], event["error"]) == ("control-socket-not-opened", "Taken")
        control_path.connect(path, 1.0).close()


def test_a_file_of_that_name_is_never_touched(path: Path) -> None:
    path.write_text("precious")

    async def test(served: Served) -> None:
        pass

    [event] = run(path, test).events()
    assert event["error"] == "FileExistsError"
    assert path.read_text() == "precious"


def test_a_missing_folder_stops_nothing_else(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        pass

    [event] = run(tmp_path / "no" / "control.sock", test).events()
    assert event["error"] == "FileNotFoundError"


def test_a_successors_socket_is_not_removed(path: Path) -> None:
    first = control_path.Listening(path)
    path.unlink()
    second = control_path.Listening(path)
    first.close()
    assert path.exists()
    second.close()
    assert not path.exists()
    # The file system may give its number to the next one.
    third = control_path.Listening(path)
    second.close()
    assert path.exists()
    third.close()


def test_a_deep_folder_is_no_obstacle(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / "e"
    deep.mkdir(parents=True)
    path = deep / "control.sock"
    assert len(str(path)) > control_path.PATH_BYTES_MAX
    gc.collect()  # of what other tests left behind
    before = len(list(Path("/proc/self/fd").iterdir()))

    async def test(served: Served) -> None:
        answer = await trio.to_thread.run_sync(ask, path, {"get": "status"})
        assert answer["status"]["edge"] == "ward-1"

    assert run(path, test).events() == []
    assert not path.exists()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# -- the client ----------------------------------------------------------------------------------


def test_the_client_says_why_there_is_no_answer(path: Path) -> None:
    with pytest.raises(Unanswered, match="is the gateway running"):
        ask(path, {"get": "status"})
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        with pytest.raises(Unanswered, match="has ended"):
            ask(path, {"get": "status"})
        listener.listen()
        with Stream(path, 0.05) as stream:
            stream.send({"get": "status"})
            with pytest.raises(Unanswered, match="stuck"):
                stream.next()
        listener.accept()[0].close()
        for answer, says in (
            (b"", "hung up"),
            (b'{"a"', "hung up"),
            (b"hello\n", "no JSON"),
            (b"[]\n", "no JSON object"),
            (b'{"error":"try later"}\n', "try later"),
        ):
            with Stream(path) as stream:
                stream.send({"get": "status"})
                sock, _ = listener.accept()
                with sock:
                    sock.recv(100)
                    sock.sendall(answer)
                with pytest.raises(Unanswered, match=says):
                    stream.next()


def test_two_answers_may_come_at_once_and_an_empty_error_is_none(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with Stream(path) as stream, listener.accept()[0] as sock:
            sock.sendall(b'{"error":"","applied":[]}\n{"at_ms":1}\n')
            assert stream.next() == {"error": "", "applied": []}
            assert stream.taken() == {"at_ms": 1}
            assert stream.taken() is None


def test_the_client_refuses_an_endless_answer(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.control_client.ANSWER_BYTES_MAX", 1000)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with Stream(path) as stream:
            sock, _ = listener.accept()
            with sock:
                sock.sendall(b"x" * 1001)
                with pytest.raises(Unanswered, match="too long"):
                    stream.next()

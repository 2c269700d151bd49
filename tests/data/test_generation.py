"""``gama prepare questions`` against a server on this machine that is sometimes busy and sometimes talks nonsense."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gama.data.chat_endpoint import Endpoint
from gama.data.generation import Pair, Writer, known_of, parsed, write_questions
from gama.data.manifest import read
from gama.errors import GamaError
from gama_cli.main import cli

PAIRS = [
    {"question": "Why?", "answer": "A dog warns.", "topic": "animals"},
    {"Instruction": "Where?", "Answer": "Outside."},
]
GOOD = json.dumps(PAIRS)


class Server:
    """Answers with the next of ``replies``: text, or (status, headers, body); the last one stays."""

    def __init__(self) -> None:
        self.replies: list[Any] = [GOOD]
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        outer, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    outer.requests.append(body | {"path": self.path})
                    outer.headers.append(dict(self.headers))
                    reply = outer.replies.pop(0) if len(outer.replies) > 1 else outer.replies[0]
                if isinstance(reply, str):
                    content = json.dumps({"choices": [{"message": {"content": reply}}]})
                    reply = (200, {}, content)
                status, headers, content = reply
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content.encode())

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    made = Server()
    thread = threading.Thread(target=made.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.http.shutdown()
    made.http.server_close()
    thread.join()


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rows = [
        {
            "audio_id": "a.wav",
            "instruction": "q",
            "output": "Audio caption: A dog barks.",
            "task": "cap",
            "split": "train",
        },
        {"audio_id": "a.wav", "instruction": "q", "output": "x", "timestamp_events": [["Bark", 0.5, 1.0]]},
        {
            "audio_id": "b.wav",
            "instruction": "q",
            "output": "x",
            "caption": "Rain.",
            "dataset": "mine",
            "group": "fs:1",
        },
        {"audio_id": "c.wav", "instruction": "q", "output": "x"},
        {"audio_id": "empty", "instruction": "q", "output": "x"},
    ]
    path = tmp_path / "m.json"
    path.write_text(json.dumps(rows))
    return path


def writer(server: Server, tmp_path: Path, **options: Any) -> Writer:
    endpoint = Endpoint(server.url, "judge", key="k", wait=0.0, attempts=3)
    return Writer(endpoint, tmp_path / "cache", count=2, **options)


def test_what_the_writer_sees(manifest: Path, tmp_path: Path) -> None:
    first, second, third = known_of([manifest], tmp_path / "out.json")
    assert first.text == "Sound events: Bark 0.5-1.0 s\nCaption: A dog barks."
    assert second.text == "Sound events: unknown\nCaption: Rain."
    assert (third.events, third.caption) == ((), "")


def test_events_in_the_originals_form(tmp_path: Path) -> None:
    row = {"audio_id": "a.wav", "instruction": "q", "output": "x"}
    path = tmp_path / "m.json"
    path.write_text(json.dumps([row | {"timestamp_events": "['(Speech-0.0-0.64)', '(Dog, bark-1.0-2.0)']"}]))
    assert next(known_of([path], path)).events == ("Speech-0.0-0.64", "Dog, bark-1.0-2.0")


def test_rows_are_written(server: Server, manifest: Path, tmp_path: Path) -> None:
    done = write_questions([manifest], tmp_path / "out.json", writer(server, tmp_path), at_once=1)
    assert (done.clips, done.unknown, done.asked, done.kept, done.pairs) == (2, 1, 2, 0, 4)
    rows = json.loads((tmp_path / "out.json").read_text())
    assert [row["audio_id"] for row in rows] == ["a.wav", "a.wav", "b.wav", "b.wav"]
    assert rows[0] == {
        "audio_id": "a.wav",
        "instruction": "Why?",
        "input": "",
        "output": "A dog warns.",
        "task": "open-ended question",
        "split": "train",
        "topic": "animals",
    }
    assert (rows[2]["dataset"], rows[2]["group"]) == ("mine", "fs:1")
    assert read(tmp_path / "out.json")[1].instruction == "Where?"
    request, headers = server.requests[0], server.headers[0]
    assert (request["path"], request["model"]) == ("/v1/chat/completions", "judge")
    assert headers["Authorization"] == "Bearer k"
    assert "A dog barks." in request["messages"][1]["content"]


def test_replies_are_kept(server: Server, manifest: Path, tmp_path: Path) -> None:
    write_questions([manifest], tmp_path / "one.json", writer(server, tmp_path))
    done = write_questions([manifest], tmp_path / "two.json", writer(server, tmp_path))
    assert (done.asked, done.kept, done.pairs) == (0, 2, 4)
    assert (tmp_path / "one.json").read_text() == (tmp_path / "two.json").read_text()
    assert len(server.requests) == 2
    write_questions([manifest], tmp_path / "three.json", writer(server, tmp_path, temperature=0.1))
    assert len(server.requests) == 4


def test_malformed_replies_are_asked_for_again_and_counted(server: Server, manifest: Path, tmp_path: Path) -> None:
    server.replies = ["I cannot", '[{"question": ""}]', f"Sure:\n```json\n{GOOD}\n```", "no", "no", "no"]
    done = write_questions([manifest], tmp_path / "out.json", writer(server, tmp_path), at_once=1)
    assert (done.asked, done.malformed, done.given_up, done.pairs) == (6, 5, 1, 2)
    server.replies = [GOOD]
    done = write_questions([manifest], tmp_path / "out.json", writer(server, tmp_path), at_once=1)
    assert (done.asked, done.kept, done.given_up, done.pairs) == (1, 1, 0, 4)


def test_a_run_that_was_stopped_goes_on(server: Server, manifest: Path, tmp_path: Path) -> None:
    server.replies = [GOOD, (401, {}, '{"error": {"message": "no credit"}}')]
    with pytest.raises(GamaError, match=r"refuses the request: 401 Unauthorized: no credit"):
        write_questions([manifest], tmp_path / "out.json", writer(server, tmp_path), at_once=1)
    assert not (tmp_path / "out.json").exists()
    server.replies = [GOOD]
    done = write_questions([manifest], tmp_path / "out.json", writer(server, tmp_path), at_once=1)
    assert (done.asked, done.kept) == (1, 1)


def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    waits: list[float] = []
    endpoint = Endpoint(server.url, "m", attempts=3, sleep=waits.append)
    server.replies = [(503, {"Retry-After": "7"}, ""), (500, {}, "x"), "text"]
    assert endpoint.complete([]) == "text"
    assert waits == [7.0, 2.0]
    server.replies = [(429, {}, '{"error": "slow down"}')]
    with pytest.raises(GamaError, match=r"no answer in 3 attempts: 429 Too Many Requests: slow down"):
        endpoint.complete([])


@pytest.mark.parametrize("content", ["<html>", "[]", '{"choices": []}', '{"choices": [{"message": null}]}'])
def test_a_server_of_another_kind(server: Server, content: str) -> None:
    server.replies = [(200, {}, content)]
    with pytest.raises(GamaError, match="answers with no chat completion"):
        Endpoint(server.url, "m").complete([])


def test_no_server(server: Server) -> None:
    with pytest.raises(GamaError, match=r"gave no answer in 2 attempts: .*refused"):
        Endpoint("http://127.0.0.1:9/v1", "m", attempts=2, wait=0.0).complete([])
    with pytest.raises(GamaError, match="is no address of a server"):
        Endpoint("file:///etc/passwd", "m")


@pytest.mark.parametrize(
    ("reply", "count"),
    [
        (GOOD, 2),
        (f"Here [as asked]:\n{GOOD}", 2),
        (json.dumps({"questions": PAIRS}), 2),
        (json.dumps(PAIRS[0]), 1),
        (json.dumps([*PAIRS, {"question": "?"}, 3]), 2),
        ('[{"question": "Why?", "answer": "cut of', 0),
        ("", 0),
        ("[[[[{{{{", 0),
        ("[" * 20_000, 0),
        (json.dumps([{"question": 3, "answer": "x"}]), 0),
    ],
)
def test_replies(reply: str, count: int) -> None:
    found = parsed(reply)
    assert len(found) == count
    assert not count or found[0] == Pair("Why?", "A dog warns.", "animals")


def test_the_command(
    runner: CliRunner, server: Server, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUR_KEY", "secret")
    out = tmp_path / "qa.jsonl"
    words = ["prepare", "questions", str(manifest), "--endpoint", server.url, "--model", "m", "--out", str(out)]
    result = runner.invoke(cli, [*words, "--key-variable", "OUR_KEY", "--at-once", "2"])
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.splitlines() == [
        "warning: 1 clips have neither events nor a caption; nothing was asked about them",
        f"wrote 4 rows about 2 clips to {out}",
        "2 replies asked for, 0 taken from those kept",
    ]
    assert server.headers[0]["Authorization"] == "Bearer secret"
    assert len(list((tmp_path / "qa.replies").iterdir())) == 2
    server.replies = ["nonsense"]
    result = runner.invoke(cli, [*words, "--count", "3", "--attempts", "2"])
    assert result.exit_code == 1
    assert "4 replies were no list" in result.stderr and "2 clips got no usable reply in 2 attempts" in result.stderr

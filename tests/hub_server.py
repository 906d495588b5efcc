"""A local server shaped as the Hugging Face hub, for tests without a network."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMITS = {"main": "a" * 40, "v1": "b" * 40}
"""branch or tag -> commit; the folder of a commit is the repository's folder / branch"""


class Hub:
    """Serves `root`/owner/name/branch; records requests; can cut a download once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.requests: list[str] = []
        self.cut_after: int | None = None
        """bytes after which the next download of more than that is cut off"""
        self.url = ""

    def downloads(self) -> list[str]:
        """Names of the files whose content was asked for."""
        return [r.split("/")[-1] for r in self.requests if r.startswith("GET") and "/resolve/" in r]

    def folder(self, repo: str, revision: str) -> Path | None:
        """Where a revision of a repository lies."""
        names = {commit: branch for branch, commit in COMMITS.items()}
        folder = self.root / repo / names.get(revision, revision)
        return folder if folder.is_dir() else None


@contextmanager
def serve(root: Path) -> Iterator[Hub]:
    """A hub that serves the folders under `root` until the block ends."""
    hub = Hub(root)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            path = self.path.split("?")[0]
            sent = self.headers.get("Range", "")
            hub.requests.append(f"{self.command} {sent + ' ' if sent else ''}{path}")
            parts = path.strip("/").split("/")
            if parts[:2] == ["api", "models"]:
                self.describe("/".join(parts[2:4]), parts[4:])
            elif len(parts) > 4 and parts[2] == "resolve":
                self.file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
            else:
                self.error(404, "EntryNotFound")

        def describe(self, repo: str, rest: list[str]) -> None:
            revision = rest[1] if len(rest) > 1 else "main"
            folder = hub.folder(repo, revision)
            if folder is None:
                known = hub.folder(repo, "main")
                return self.error(404, "RevisionNotFound" if known else "RepoNotFound")
            files = sorted(p for p in folder.iterdir() if p.is_file())
            if rest[:1] == ["tree"]:
                answer: Any = [
                    {"type": "file", "path": p.name, "size": p.stat().st_size, "oid": digest(p)}
                    for p in files
                ]
            else:
                siblings = [{"rfilename": p.name} for p in files]
                commit = COMMITS.get(revision, revision)
                answer = {"id": repo, "modelId": repo, "sha": commit, "siblings": siblings,
                          "private": False, "tags": [], "downloads": 0, "likes": 0}  # fmt: skip
            body = json.dumps(answer).encode()
            self.reply(200, {"Content-Type": "application/json"}, body)

        def file(self, repo: str, revision: str, name: str) -> None:
            folder = hub.folder(repo, revision)
            if folder is None or not (folder / name).is_file():
                return self.error(404, "EntryNotFound" if folder else "RepoNotFound")
            content = (folder / name).read_bytes()
            headers = {"ETag": f'"{digest(folder / name)}"', "Accept-Ranges": "bytes",
                       "X-Repo-Commit": COMMITS.get(revision, revision)}  # fmt: skip
            start = int(self.headers.get("Range", "bytes=0-")[6:].split("-")[0])
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.reply(206 if start else 200, headers, content[start:])

        def error(self, status: int, code: str) -> None:
            self.reply(status, {"X-Error-Code": code, "X-Error-Message": code}, b"")

        def reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            if hub.cut_after is not None and len(body) > hub.cut_after:
                body, hub.cut_after = body[: hub.cut_after], None
                self.close_connection = True
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def digest(path: Path) -> str:
    """Return what the hub would call the file's content."""
    return hashlib.sha1(path.read_bytes()).hexdigest()

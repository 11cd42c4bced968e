"""A hub on 127.0.0.1: as much of the Hugging Face API as pushing and pulling a model asks for, kept in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SHA = "a" * 40


@dataclass
class Repository:
    private: bool
    files: dict[str, bytes] = field(default_factory=dict)


@dataclass
class Hub:
    address: str = ""
    token: str = "hf_secretsecretsecret"
    repositories: dict[str, Repository] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)
    cut: str = ""
    """A file that is sent in half."""


@contextmanager
def hub() -> Iterator[Hub]:
    state = Hub()

    class Handler(_Handler):
        hub = state

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, form: str, *values: object) -> None:
        pass

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def reply(self, content: object = None, status: int = 200, **headers: str) -> None:
        packed = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(packed)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(packed)

    def refuse(self, status: int, code: str) -> None:
        self.reply({"error": code}, status, X_Error_Code=code)

    def may(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {self.hub.token}"

    def do_POST(self) -> None:
        body = self.body()
        if not self.may():
            self.reply({"error": "Invalid username or password."}, 401)
            return
        parts = self.path.partition("?")[0].strip("/").split("/")
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            status = 409 if name in self.hub.repositories else 200
            private = asked.get("private", asked.get("visibility") == "private")
            self.hub.repositories.setdefault(name, Repository(bool(private)))
            self.reply({"url": f"{self.hub.address}/{name}", "name": name}, status)
        elif "preupload" in parts:
            files = json.loads(body)["files"]
            modes = {True: "lfs", False: "regular"}
            told = [
                {"path": f["path"], "uploadMode": modes[f["path"].endswith(".safetensors")], "shouldIgnore": False}
                for f in files
            ]
            self.reply({"files": told})
        elif self.path.endswith("/info/lfs/objects/batch"):
            upload = lambda oid: {"upload": {"href": f"{self.hub.address}/lfs/{oid}", "header": {}}}  # noqa: E731
            objects = [{**one, "actions": upload(one["oid"])} for one in json.loads(body)["objects"]]
            self.reply({"transfer": "basic", "objects": objects})
        elif "commit" in parts:
            self.commit("/".join(parts[2:4]), body)
        else:
            self.reply({}, 200)

    def commit(self, name: str, body: bytes) -> None:
        files = self.hub.repositories[name].files
        for line in body.decode().splitlines():
            told: dict[str, Any] = json.loads(line)
            value = told["value"]
            if told["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif told["key"] == "lfsFile":
                files[value["path"]] = self.hub.stored[value["oid"]]
            elif told["key"] == "deletedFile":
                files.pop(value["path"], None)
        address = f"{self.hub.address}/{name}/commit/{SHA}"
        self.reply({"success": True, "commitOid": SHA, "commitUrl": address, "pullRequestUrl": None})

    def do_PUT(self) -> None:
        body = self.body()
        self.hub.stored[hashlib.sha256(body).hexdigest()] = body
        self.reply({})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        if self.path.startswith("/api/whoami"):
            self.reply({"name": "me", "type": "user", "orgs": []})
            return
        name = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        kept = self.hub.repositories.get(name)
        if kept is None or (kept.private and not self.may()):
            self.refuse(401 if not self.may() else 404, "RepoNotFound")
            return
        if parts[0] == "api":
            if "tree" in parts:
                self.reply([self.entry(path, body) for path, body in kept.files.items()])
                return
            siblings = [{"rfilename": path} for path in kept.files]
            self.reply({"id": name, "sha": SHA, "private": kept.private, "siblings": siblings, "tags": []})
            return
        body = kept.files.get("/".join(parts[4:]))
        if body is None:
            self.refuse(404, "EntryNotFound")
            return
        etag = hashlib.sha256(body).hexdigest()
        if self.hub.cut == parts[-1]:
            body = body[: len(body) // 2]
        self.reply(body, 200, ETag=f'"{etag}"', X_Repo_Commit=SHA)

    def entry(self, path: str, body: bytes) -> dict[str, object]:
        return {"type": "file", "path": path, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}

"""A W&B server of the smallest kind: it takes what `wandb sync` sends, or refuses it, and remembers it."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

KEY = "0123456789" * 4


class Server(ThreadingHTTPServer):
    """Serves on 127.0.0.1.

    Attributes:
        asked: (operation, variables) of every GraphQL request, in order.
        steps: W&B's steps of all history rows, in the order in which they came.
        uploaded: sizes of files, by the last part of their addresses.
        refusing: whether every request is answered by 403.
    """

    daemon_threads = True

    def __init__(self, *, refusing: bool):
        super().__init__(("127.0.0.1", 0), Handler)
        self.refusing = refusing
        self.asked, self.steps, self.uploaded = [], [], {}
        self.url = f"http://127.0.0.1:{self.server_port}"

    def variables(self, operation):
        return [variables for name, variables in self.asked if name == operation]

    def answer(self, operation, variables):
        upload = {"id": "file", "uploadUrl": f"{self.url}/put/manifest", "uploadHeaders": []}
        if operation == "UpsertBucket":
            project = {"id": "project", "name": variables["project"], "entity": {"id": "entity", "name": "somebody"}}
            bucket = {"id": "run", "name": variables["name"], "displayName": variables["displayName"]}
            return {"upsertBucket": {"bucket": {**bucket, "project": project}, "inserted": True}}
        if operation == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": f"{self.url}/put/{name}"} for name in variables["files"]]
            return {"createRunFiles": {"runID": "run", "uploadHeaders": [], "files": files}}
        if operation == "CreateArtifact":
            sequence = {"id": "sequence", "latestArtifact": None}
            return {"createArtifact": {"artifact": {"id": "a", "state": "PENDING", "artifactSequence": sequence}}}
        if operation in ("CreateArtifactManifest", "UpdateArtifactManifest"):
            field = operation[0].lower() + operation[1:]
            return {
                field: {"artifactManifest": {"id": "manifest", "file": {**upload, "name": "m", "displayName": "m"}}}
            }
        if operation == "CreateArtifactFiles":
            edges = []
            for file in variables["input"]["artifactFiles"]:
                names = {"name": file["name"], "displayName": file["name"], "storagePath": file["name"]}
                address = {"uploadUrl": f"{self.url}/put/{file['name']}", "uploadMultipartUrls": None}
                edges.append({"node": {**upload, **names, **address, "artifact": {"id": "a"}}})
            return {"createArtifactFiles": {"files": {"edges": edges}}}
        if operation == "CommitArtifact":
            return {"commitArtifact": {"artifact": {"id": "a", "digest": "d"}}}
        if operation == "ServerFeaturesQuery":
            return {"serverInfo": {"features": []}}
        return {"model": None} if operation == "RunResumeStatus" else None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        answer = {}
        if self.path == "/graphql":
            request = json.loads(body)
            operation = re.search(r"(?:mutation|query)\s+(\w+)", request["query"])[1]
            variables = request.get("variables") or {}
            self.server.asked.append((operation, variables))
            answer = {"data": self.server.answer(operation, variables)}
        elif self.path.endswith("file_stream"):
            rows = json.loads(body).get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
            self.server.steps += [json.loads(row)["_step"] for row in rows]
        elif self.path.startswith("/put/"):
            self.server.uploaded[self.path.rpartition("/")[2]] = len(body)
        if self.server.refusing:
            answer = {"errors": [{"message": "you may not"}]}
        text = json.dumps(answer).encode()
        self.send_response(403 if self.server.refusing else 200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_PUT = do_POST

    def log_message(self, *args):
        pass


@contextmanager
def wandb_server(*, refusing: bool = False) -> Iterator[Server]:
    with Server(refusing=refusing) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()

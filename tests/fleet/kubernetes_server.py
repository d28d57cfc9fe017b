"""A fake API server: it stores objects; a test plays the Job controller."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: fake
contexts: [{{name: fake, context: {{cluster: fake, user: ada}}}}]
clusters: [{{name: fake, cluster: {{server: "http://127.0.0.1:{port}"}}}}]
users: [{{name: ada, user: {{token: not-a-secret}}}}]
"""


@dataclass
class Kubernetes:
    """Objects by path, and the received requests."""

    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    log: str = ""
    uid: str | None = "cluster-1"
    """The uid of the namespace kube-system; None if users may not read it."""
    quota: bool = False
    """Whether Secrets are refused, as by a full quota."""

    def job(self) -> dict[str, Any]:
        """Return the only Job."""
        (found,) = [one for path, one in self.objects.items() if "/jobs/" in path]
        return found

    def kinds(self) -> list[str]:
        """Return the kinds of all objects."""
        return sorted(one["kind"] for one in self.objects.values())

    def status(self, **status: Any) -> None:
        """Set the status of the Job, as its controller would."""
        self.job()["status"] = status

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """Return the status and the content for a request."""
        path, _, _ = path.partition("?")
        self.requests.append((method, path))
        if path.endswith("/log"):
            return 200, self.log
        if path.endswith("/namespaces/kube-system"):
            if self.uid is None:
                return 403, {"kind": "Status", "message": "forbidden", "code": 403}
            return 200, {"kind": "Namespace", "metadata": {"uid": self.uid}}
        if method == "POST":
            return self._create(path, body)
        if path.endswith("/pods"):
            pod = {"metadata": {"name": "tuner-pod"}, "spec": {"containers": []}}
            return 200, {"kind": "PodList", "items": [pod]}
        if path not in self.objects:
            return 404, {"kind": "Status", "message": "not found", "code": 404}
        if method == "PATCH":
            self.objects[path]["spec"].update(body["spec"])
        if method == "DELETE":
            return 200, self._delete(path)
        return 200, self.objects[path]

    def _create(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if self.quota and body["kind"] == "Secret":
            return 403, {"kind": "Status", "message": "exceeded quota: secrets", "code": 403}
        made = {**body, "status": {}}
        made["metadata"] = {**body["metadata"], "uid": f"uid-{len(self.objects)}"}
        self.objects[f"{path}/{body['metadata']['name']}"] = made
        return 201, made

    def _delete(self, path: str) -> dict[str, Any]:
        """Delete an object, and all that it owns."""
        gone = self.objects.pop(path)
        uid = gone["metadata"]["uid"]
        for other, one in list(self.objects.items()):
            if any(owner["uid"] == uid for owner in one["metadata"].get("ownerReferences", [])):
                del self.objects[other]
        return {"kind": "Status", "status": "Success"}


@contextmanager
def run_kubernetes(folder: Path) -> Iterator[tuple[Kubernetes, Path]]:
    """Serve on 127.0.0.1; yield the objects, and a kubeconfig for the server."""
    kubernetes = Kubernetes()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            status, content = kubernetes.answer(self.command, self.path, body)
            plain = isinstance(content, str)
            data = (content if plain else json.dumps(content)).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain" if plain else "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    config = folder / "kubeconfig"
    config.write_text(KUBECONFIG.format(port=server.server_port))
    try:
        yield kubernetes, config
    finally:
        server.shutdown()
        server.server_close()

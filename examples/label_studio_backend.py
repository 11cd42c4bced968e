"""A Label Studio ML backend: python label_studio_backend.py MODEL PICTURES [PORT]

Serves any model that `--model` takes (a specialist folder above all) at http://127.0.0.1:9090. In Label Studio:
Settings, Model, Connect Model, with "interactive preannotations" on; the labelling configuration has BrushLabels or
PolygonLabels, and KeyPointLabels or RectangleLabels with smart="true" to ask with. PICTURES is the folder in which the
pictures of the tasks lie on this machine (Label Studio's media/upload, or your own); nothing is fetched from anywhere.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from specialsam import SpecialSamError, read_image
from specialsam.apps.label_studio import predict, read_tags
from specialsam.apps.session import open_session
from specialsam.core.errors import DataError
from specialsam.data.image_index import ImageIndex
from specialsam.data.label_studio import find_picture

MOST_BYTES = 20_000_000
session, pictures = open_session(sys.argv[1]), Path(sys.argv[2])
port = int(sys.argv[3]) if len(sys.argv) > 3 else 9090
known: list[ImageIndex] = []


def looked_up() -> ImageIndex:
    """The pictures that lie there now, by their names."""
    known[:] = [ImageIndex(pictures, pictures / "tasks.json", None)]
    return known[-1]


def answer(asked: dict) -> dict:
    """Predictions for a request of Label Studio's, one a task."""
    tags = read_tags(asked.get("label_config") or "")
    drawn = ((asked.get("params") or {}).get("context") or {}).get("result") or []
    results = []
    for task in asked.get("tasks") or []:
        name = str(task["data"].get(tags.field, ""))
        path = find_picture(known[-1], name) or find_picture(looked_up(), name)  # uploaded since?
        if path is None:
            raise DataError(f"expected the picture {name!r} of task {task.get('id')} in {pictures}, found none")
        results.append(predict(session, read_image(path), tags, drawn))
    return {"results": results, "model_version": session.segmenter.name}


class Handler(BaseHTTPRequestHandler):
    """What Label Studio calls: /health, /setup, /predict, /webhook."""

    def do_GET(self):
        self.reply({"status": "UP", "model_class": "specialsam"})

    def do_POST(self):
        try:
            length = int(self.headers.get("Content-Length") or 0)
            if length > MOST_BYTES:
                raise DataError(f"expected a request of at most {MOST_BYTES} bytes, got {length}")
            asked = json.loads(self.rfile.read(length) or b"{}")
            if self.path == "/predict":
                self.reply(answer(asked))
            elif self.path == "/setup":
                self.reply({"model_version": session.segmenter.name})
            else:  # /webhook and /train: nothing is learned here
                self.reply({"status": "ok"})
        except (SpecialSamError, ValueError, KeyError, TypeError, AttributeError) as error:
            self.reply({"detail": str(error)}, 400)

    def reply(self, content: dict, status: int = 200):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, form: str, *values: object):
        print(form % values, flush=True)


looked_up()
server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
print(f"serving {session.segmenter.name} at http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()

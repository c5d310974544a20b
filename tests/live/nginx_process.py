"""A real nginx of the test's own on a free port: a proxy before an origin that takes down what reaches it, by client."""

import asyncio
import shutil
import socket
import subprocess
import time
from pathlib import Path

FOUND = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
START_S = 10.0
CONF = """
daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  client_header_timeout {patience_s}s; client_body_timeout {patience_s}s; client_max_body_size 4m;
  keepalive_timeout {patience_s}s;
  server {{
    listen 127.0.0.1:{port}; merge_slashes off;
    location / {{
      proxy_pass http://127.0.0.1:{origin}; proxy_http_version 1.1; proxy_ignore_client_abort on;
      proxy_set_header X-Client $remote_port;
    }}
  }}
}}
"""


class Origin:
    """What nginx passed on, by the client's port: (method, target, body)."""

    def __init__(self) -> None:
        self.seen: dict[int, list[tuple[bytes, bytes, bytes]]] = {}
        self.port = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        line, *rows = head[:-4].split(b"\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (row.partition(b":") for row in rows)}
        body = await reader.readexactly(int(fields.get(b"content-length", 0)))
        method, target, _ = line.split(b" ")
        self.seen.setdefault(int(fields[b"x-client"]), []).append((method, target, body))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        writer.close()


class Nginx:
    """Runs as a child until `close`."""

    def __init__(self, folder: Path, origin: int, patience_s: int) -> None:
        with socket.socket() as trial:
            trial.bind(("127.0.0.1", 0))
            self.port = trial.getsockname()[1]
        conf = folder / "nginx.conf"
        conf.write_text(CONF.format(folder=folder, port=self.port, origin=origin, patience_s=patience_s))
        self._process = subprocess.Popen([FOUND, "-p", str(folder), "-c", str(conf)], stderr=subprocess.DEVNULL)
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            with socket.socket() as trial:
                if trial.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
        self.close()
        raise RuntimeError(f"nginx did not start on port {self.port}: {(folder / 'error.log').read_text()}")

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()

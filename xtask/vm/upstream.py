"""The service that the credential is for: TLS on 443, and a plain port 80 that no agent must reach.

It writes the received requests to a file, one JSON object per line."""
import json
import socket
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

address, certificate, key, seen = sys.argv[1:5]
lock = threading.Lock()


def note(**what):
    with lock, open(seen, "a") as file:
        print(json.dumps(what), file=file)


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        authorization = self.headers.get("Authorization", "")
        note(path=self.path, authorization=authorization)
        # It echoes the received credential: the agent must not see it.
        body = json.dumps({"path": self.path, "authorization": authorization}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def finish_request(self, request, client_address):
        # The connection's own thread performs the handshake.
        self.RequestHandlerClass(context.wrap_socket(request, server_side=True), client_address, self)

    def handle_error(self, request, client_address):
        pass


def unreachable():
    listener = socket.create_server((address, 80))
    while True:
        connection, peer = listener.accept()
        note(reached=peer[0])
        connection.close()


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
threading.Thread(target=unreachable, daemon=True).start()
Server((address, 443), Answer).serve_forever()

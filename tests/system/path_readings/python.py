"""Reports how Python reads a request's path: in routers, in http.server for files, and in WSGI."""
import http.server, json, posixpath, sys, urllib.parse


class Reader(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = urllib.parse.urlsplit(self.path).path
        decoded = urllib.parse.unquote(path)
        wsgi = urllib.parse.unquote(path, "iso-8859-1").encode("iso-8859-1").decode("utf-8", "replace")
        readings = [decoded, posixpath.normpath(decoded), wsgi]
        body = json.dumps([reading.split("/") for reading in readings]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Reader).serve_forever()

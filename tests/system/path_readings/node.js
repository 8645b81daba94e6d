// Reports how Node reads a request's path: in URL parsers, in routers and in file servers.
const http = require("http"), path = require("path");
const server = http.createServer((request, response) => {
  const readings = [];
  try {
    const pathname = new URL(request.url, "http://reader.test").pathname;
    readings.push(pathname.split("/").map(decodeURIComponent));
    readings.push(path.posix.normalize(decodeURIComponent(pathname)).split("/"));
    readings.push(path.win32.normalize(decodeURIComponent(request.url)).split("\\"));
  } catch (error) { response.statusCode = 400; }
  response.end(JSON.stringify(readings));
});
server.listen(Number(process.argv[2]), "127.0.0.1");

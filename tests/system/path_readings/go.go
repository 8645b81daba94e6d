// Reports how Go reads a request's path: in net/http, in its ServeMux and in file servers.
package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path"
	"strings"
)

func main() {
	read := func(w http.ResponseWriter, r *http.Request) {
		split := func(p string) []string { return strings.Split(p, "/") }
		json.NewEncoder(w).Encode([][]string{split(r.URL.Path), split(path.Clean("/" + r.URL.Path))})
	}
	panic(http.ListenAndServe("127.0.0.1:"+os.Args[1], http.HandlerFunc(read)))
}

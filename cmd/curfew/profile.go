package main

import (
	"net/http"
	"net/http/pprof"
)

// profiles serves the profiles of the process below /debug/pprof/. The command line is not among them: it may hold
// secrets.
func profiles() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.Handle("GET /debug/pprof/cmdline", http.NotFoundHandler())
	// A page of another site could not read a profile, but have many made.
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Header.Get("Sec-Fetch-Site") {
		case "cross-site", "same-site":
			http.Error(w, "this is not for pages of other sites", http.StatusForbidden)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

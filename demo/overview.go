package demo

import "net/http"

// overview is the page that shows the provider and both apps side by side.
type overview struct {
	url      string
	provider string
	apps     []*app
	journal  *journal
}

// pane is one of the three frames.
type pane struct{ ID, Name, URL, Kind string }

func (o *overview) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /assets/", static())
	mux.HandleFunc("GET /live", o.journal.stream(o.journal.state))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		render(w, "overview.html", "", []pane{
			{o.apps[0].id, o.apps[0].name, o.apps[0].url, "app"},
			{"provider", "Northgate ID", o.provider, "provider"},
			{o.apps[1].id, o.apps[1].name, o.apps[1].url, "app"},
		})
	})
	return mux
}

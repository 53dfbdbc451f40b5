package console

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"example.com/curfew/audit"
	"example.com/curfew/web"
)

// EventPage is the response with one page of events.
type EventPage struct {
	Events []audit.Event `json:"events"`
	// Next is the `before` of the next page; 0: this is the last. In an answer to `after` it is the next `after`.
	Next int64 `json:"next,omitempty"`
}

func (c *Console) listEvents(ctx context.Context, r *http.Request) (any, error) {
	return c.events(ctx, r.URL.Query())
}

func (c *Console) events(ctx context.Context, q url.Values) (EventPage, error) {
	var ask audit.Query
	var err error
	if ask.Limit, err = limitOf(q); err != nil {
		return EventPage{}, err
	}
	for name, to := range map[string]*int64{"after": &ask.After, "before": &ask.Before} {
		if text := q.Get(name); text != "" {
			if *to, err = strconv.ParseInt(text, 10, 64); err != nil || *to < 0 {
				return EventPage{}, web.Fail(http.StatusBadRequest, name+": want the position of an event", err)
			}
		}
	}
	if ask.After > 0 && ask.Before > 0 {
		return EventPage{}, web.Fail(http.StatusBadRequest, "ask for the events after one, or for those before one", nil)
	}
	kind, sub, result, provider := audit.Type(q.Get("type")), q.Get("sub"), q.Get("result"), q.Get("provider")
	if kind != "" && !slices.Contains(audit.Types(), kind) {
		return EventPage{}, web.Fail(http.StatusBadRequest, "type: there is no such type of event", nil)
	}
	if kind != "" || sub != "" || result != "" || provider != "" {
		ask.Match = func(e *audit.Event) bool {
			return (kind == "" || e.Type == kind) && (sub == "" || e.Subject == sub) &&
				(result == "" || e.Result == result) && (provider == "" || e.Provider == provider)
		}
	}
	page, err := c.Audit.Events(ctx, ask)
	if page.Events == nil {
		page.Events = []audit.Event{}
	}
	return EventPage{page.Events, page.Next}, err
}

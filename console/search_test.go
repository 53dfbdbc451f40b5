package console

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"example.com/curfew/internal/rig"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/store/memory"
)

// listed is a store that counts what is listed, and stops answering after some lists.
type listed struct {
	store.Store
	lists, most atomic.Int64
}

func (l *listed) List(ctx context.Context, q store.Query, now time.Time) (store.Page, error) {
	if most := l.most.Load(); l.lists.Add(1) > most && most > 0 {
		return store.Page{}, errors.New("away")
	}
	return l.Store.List(ctx, q, now)
}

// flushes counts how often a page was sent as far as it was.
type flushes struct {
	*httptest.ResponseRecorder
	n int
}

func (f *flushes) Flush() { f.n++ }

// A search for what is sealed goes through all sessions, a few at a time, and the page shows those that match as they
// are found.
func TestASearchGoesOnUntilItsPageIsComplete(t *testing.T) {
	t.Parallel()
	backend := &listed{Store: memory.New()}
	t.Cleanup(func() { backend.Close() })
	log := slog.New(slog.DiscardHandler)
	m, err := session.NewManager(session.Config{Store: backend, Keyring: rig.Keyring(t), Log: log, MaxPerSubject: -1})
	rig.Must(t, err)
	const all = 1050
	for i := range all {
		n := session.SignIn{Issuer: "i", ClientID: "c", Subject: fmt.Sprint("user", i), Began: m.Now(),
			Claims: map[string]any{"email": fmt.Sprintf("User%d@example.com", i%10)}, Address: "10.0.0.1"}
		if i == 700 {
			n.Claims = map[string]any{"email": "Alice.<b>@Example.com", "name": "Zoë"}
			n.Address = "fe80::1"
		}
		_, _, err := m.Create(t.Context(), n)
		rig.Must(t, err)
	}
	h := (&Console{Ready: &Readiness{}, Metrics: prometheus.NewRegistry(), Sessions: m, Log: log}).Handler()
	ask := func(query url.Values) (string, int) {
		t.Helper()
		w := &flushes{ResponseRecorder: httptest.NewRecorder()}
		r := httptest.NewRequest(http.MethodGet, "/console/sessions?"+query.Encode(), nil)
		r.Host = "localhost"
		h.ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			t.Fatalf("%v: %d %s", query, w.Code, w.Body)
		}
		return w.Body.String(), w.n
	}
	for _, c := range []struct {
		name        string
		query       url.Values
		rows        int
		says        string
		goesOn      bool
		least, most int // flushes
	}{
		{"one by e-mail, in other letters", url.Values{"email": {"aLICE.<B>@example.COM"}}, 1, "Compared: 1050 sessions.",
			false, 10, 12},
		{"one by address", url.Values{"address": {"fe80::1"}}, 1, "Compared: 1050 sessions.", false, 10, 12},
		{"a part of an e-mail address", url.Values{"email": {"lice.<b>@example.com"}}, 0, "No session.", false, 10, 12},
		{"a part of an address", url.Values{"address": {"10.0.0."}}, 0, "No session.", false, 10, 12},
		{"nobody of this age", url.Values{"before": {"2001-01-01"}}, 0, "No session.", false, 10, 12},
		{"all of this age", url.Values{"since": {"24h"}}, 25, "There are more.", true, 1, 1},
		{"a tenth", url.Values{"email": {"user3@example.com"}}, 25, "There are more.", true, 2, 6},
		{"all", nil, 25, "Compared: 25 sessions.", true, 1, 1},
	} {
		page, flushed := ask(c.query)
		rows := strings.Count(page, `aria-label="End session`)
		if rows != c.rows || !strings.Contains(page, c.says) || strings.Contains(page, "Go on") != c.goesOn ||
			!strings.HasSuffix(page, "</html>\n") || flushed < c.least || flushed > c.most {
			t.Errorf("%s: %d rows, sent in %d parts\n%s", c.name, rows, flushed, page[strings.Index(page, "<main"):])
		}
		if strings.Contains(page, "Comparing sessions one by one") != (flushed > 1) ||
			strings.Count(page, "<table>") != strings.Count(page, "</table>") ||
			(rows > 0) != strings.Contains(page, "<table>") {
			t.Errorf("%s: the page is not whole\n%s", c.name, page)
		}
	}

	// All pages together have each that matches once.
	seen := map[string]bool{}
	for q, pages := (url.Values{"email": {"user3@example.com"}}), 0; ; pages++ {
		page, _ := ask(q)
		for _, part := range strings.Split(page, `aria-label="End session `)[1:] {
			id, _, _ := strings.Cut(part, `"`)
			seen[id] = true
		}
		_, next, more := strings.Cut(page, `href="/console/sessions?`)
		if !strings.Contains(page, "Go on") {
			break
		}
		next, _, _ = strings.Cut(next, `"`)
		if q, err = url.ParseQuery(strings.ReplaceAll(next, "&amp;", "&")); err != nil || !more || pages > 10 {
			t.Fatalf("the next page: %q, %v", next, err)
		}
	}
	if len(seen) != all/10 {
		t.Errorf("the pages have %d sessions, want %d", len(seen), all/10)
	}

	// A store that goes away in the middle: what was found is shown, and the page says where it stopped.
	backend.most.Store(backend.lists.Load() + 3)
	page, _ := ask(url.Values{"address": {"192.0.2.1"}})
	if !strings.Contains(page, "the store does not answer; try again") || !strings.Contains(page, "Go on") ||
		!strings.Contains(page, "Compared: 300 sessions.") || strings.Contains(page, "No session") {
		t.Errorf("without a store in the middle:\n%s", page)
	}
}

package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"example.com/curfew/fanout"
	"example.com/curfew/store"
	"example.com/curfew/web"
)

const (
	adminTimeout  = 15 * time.Second
	retryDeadline = 24 * time.Hour // of a notice that somebody on duty has tried again
)

// admin answers `curfew notice` and `curfew key` on the private listener.
type admin struct {
	outbox store.Outbox
	sender *fanout.Sender
	keys   *fanout.Keys // nil: there is no app to tell
	log    *slog.Logger
}

// noticeView is what may be shown of a notice: neither the key of its session nor what it held.
type noticeView struct {
	ID       string    `json:"id"`
	Kind     string    `json:"kind"`
	Target   string    `json:"target"`
	State    string    `json:"state"`
	Issuer   string    `json:"issuer"`
	ClientID string    `json:"client_id"`
	Subject  string    `json:"sub,omitempty"`
	SID      string    `json:"sid,omitempty"`     // as the target knows it
	Session  string    `json:"session,omitempty"` // as log lines name it
	Cause    string    `json:"cause"`
	Created  time.Time `json:"created"`
	Due      time.Time `json:"due"`
	Deadline time.Time `json:"deadline"`
	Attempts int       `json:"attempts"`
	Reason   string    `json:"reason,omitempty"`
}

type noticePage struct {
	Notices []noticeView `json:"notices"`
	Next    string       `json:"next,omitempty"`
}

func viewNotice(n store.Notice) noticeView {
	v := noticeView{ID: n.ID, Kind: string(n.Kind), Target: n.Target, State: string(store.NoticePending), Issuer: n.Issuer, ClientID: n.ClientID,
		Subject: n.Subject, SID: n.SID, Cause: string(n.Cause), Created: n.Created, Due: n.Due, Deadline: n.Deadline, Attempts: n.Attempts, Reason: n.Reason}
	if n.GivenUp {
		v.State = string(store.NoticeDead)
	}
	if !n.Key.IsZero() {
		v.Session = n.Key.Handle()
		if n.Kind == store.NoticeTell {
			v.SID = n.Key.SIDFor(n.Target)
		}
	}
	return v
}

func (a *admin) mount(mux *http.ServeMux) {
	mux.Handle("GET /api/notices", a.answer(a.list))
	mux.Handle("GET /api/notices/{id}", a.answer(a.show))
	mux.Handle("POST /api/notices/{id}/retry", a.answer(a.retry))
	mux.Handle("POST /api/notices/{id}/drop", a.answer(a.drop))
	mux.Handle("GET /api/keys", a.answer(a.listKeys))
	mux.Handle("POST /api/keys/rotate", a.answer(a.rotate))
}

// answer writes what ask returns, or why it could not. A page of another site cannot have it change anything; [hosts] sees
// to it that it cannot read anything either.
func (a *admin) answer(ask func(context.Context, *http.Request) (any, error)) http.Handler {
	return http.NewCrossOriginProtection().Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		ctx, cancel := context.WithTimeout(r.Context(), adminTimeout)
		defer cancel()
		v, err := ask(ctx, r)
		if err == nil {
			web.WriteJSON(w, http.StatusOK, v)
			return
		}
		status, say := http.StatusInternalServerError, "it did not work; the log of the gateway says why"
		if f, ok := errors.AsType[*web.Failure](err); ok {
			status, say = f.Status, f.Message.Text
		} else if errors.Is(err, store.ErrNoNotice) {
			status, say = http.StatusNotFound, "there is no such notice: it is done, dropped, or never was"
		}
		if status >= 500 {
			a.log.Error("a request on the private listener failed", "event", "admin_failed", "path", r.URL.Path, "error", err)
		}
		web.WriteJSON(w, status, map[string]string{"error": say})
	}))
}

func (a *admin) list(ctx context.Context, r *http.Request) (any, error) {
	q := r.URL.Query()
	limit := 0
	if text := q.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 1000 {
			return nil, web.Fail(http.StatusBadRequest, "limit: want 1 to 1000", err)
		}
		limit = n
	}
	state := store.NoticeState(q.Get("state"))
	switch state {
	case "", store.NoticePending, store.NoticeDead:
	default:
		return nil, web.Fail(http.StatusBadRequest, "state: want pending or dead", nil)
	}
	page, err := a.outbox.Notices(ctx, store.NoticeQuery{Kind: store.NoticeKind(q.Get("kind")), Target: q.Get("target"), State: state, After: q.Get("after"), Limit: limit})
	if err != nil {
		return nil, err
	}
	all := noticePage{Notices: make([]noticeView, len(page.Notices)), Next: page.Next}
	for i, n := range page.Notices {
		all.Notices[i] = viewNotice(n)
	}
	return all, nil
}

func (a *admin) show(ctx context.Context, r *http.Request) (any, error) {
	n, err := a.notice(ctx, r)
	return viewNotice(n), err
}

// notice returns the notice that the path names.
func (a *admin) notice(ctx context.Context, r *http.Request) (store.Notice, error) {
	page, err := a.outbox.Notices(ctx, store.NoticeQuery{ID: r.PathValue("id")})
	if err == nil && len(page.Notices) == 0 {
		err = store.ErrNoNotice
	}
	if err != nil {
		return store.Notice{}, err
	}
	return page.Notices[0], nil
}

func (a *admin) retry(ctx context.Context, r *http.Request) (any, error) {
	now := store.Time(time.Now())
	if err := a.outbox.Retry(ctx, r.PathValue("id"), now, now.Add(retryDeadline)); err != nil {
		return nil, err
	}
	a.sender.Wake()
	a.log.Info("a notice is tried again on demand", "event", "notice_retried", "notice", r.PathValue("id"))
	return struct{}{}, nil
}

func (a *admin) drop(ctx context.Context, r *http.Request) (any, error) {
	n, err := a.notice(ctx, r)
	if err == nil {
		err = a.outbox.Drop(ctx, n.ID)
	}
	if err != nil {
		return nil, err
	}
	a.log.Warn("a notice was dropped undone, on demand", "event", "notice_dropped", "notice", n.ID, "kind", n.Kind, "target", n.Target, "sub", n.Subject)
	return struct{}{}, nil
}

type keyList struct {
	Keys []fanout.KeyInfo `json:"keys"`
}

func (a *admin) listKeys(ctx context.Context, _ *http.Request) (any, error) {
	if a.keys == nil {
		return nil, errNoKeys()
	}
	all, err := a.keys.List(ctx)
	return keyList{all}, err
}

func (a *admin) rotate(ctx context.Context, r *http.Request) (any, error) {
	if a.keys == nil {
		return nil, errNoKeys()
	}
	if err := a.keys.Rotate(ctx, r.URL.Query().Get("now") == "true"); err != nil {
		return nil, err
	}
	return a.listKeys(ctx, r)
}

func errNoKeys() error {
	return web.Fail(http.StatusNotFound, "there are no signing keys: no apps are configured, so nothing is signed", nil)
}

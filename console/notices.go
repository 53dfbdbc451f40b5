package console

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"example.com/curfew/audit"
	"example.com/curfew/store"
	"example.com/curfew/web"
)

const retryDeadline = 24 * time.Hour // of a notice that an operator retries

// Notice describes a notice, without the key and the tokens of its session.
type Notice struct {
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

// NoticePage is the response with one page of notices.
type NoticePage struct {
	Notices []Notice `json:"notices"`
	Next    string   `json:"next,omitempty"` // the `after` of the next page; empty: this is the last
}

func view(n store.Notice) Notice {
	v := Notice{
		ID: n.ID, Kind: string(n.Kind), Target: n.Target, State: string(store.NoticePending),
		Issuer: n.Issuer, ClientID: n.ClientID, Subject: n.Subject, SID: n.SID, Cause: string(n.Cause),
		Created: n.Created, Due: n.Due, Deadline: n.Deadline, Attempts: n.Attempts, Reason: n.Reason,
	}
	if n.GivenUp {
		v.State = string(store.NoticeDead)
	}
	if !n.Key.IsZero() {
		v.Session = n.Key.Handle()
		if n.Kind == store.NoticeLogout {
			v.SID = n.Key.SIDFor(n.Target)
		}
	}
	return v
}

func (c *Console) listNotices(ctx context.Context, r *http.Request) (any, error) {
	q := r.URL.Query()
	limit, err := limitOf(q)
	if err != nil {
		return nil, err
	}
	state := store.NoticeState(q.Get("state"))
	switch state {
	case "", store.NoticePending, store.NoticeDead:
	default:
		return nil, web.Fail(http.StatusBadRequest, "state: want pending or dead", nil)
	}
	kind := store.NoticeKind(q.Get("kind"))
	switch kind {
	case "", store.NoticeLogout, store.NoticeRevoke:
	default:
		return nil, web.Fail(http.StatusBadRequest, "kind: want logout or revoke", nil)
	}
	page, err := c.Notices.Notices(ctx, store.NoticeQuery{
		Kind: kind, Target: q.Get("target"), State: state, After: q.Get("after"),
		Limit: limit,
	})
	if err != nil {
		return nil, err
	}
	all := NoticePage{Notices: make([]Notice, len(page.Notices)), Next: page.Next}
	for i, n := range page.Notices {
		all.Notices[i] = view(n)
	}
	return all, nil
}

func (c *Console) showNotice(ctx context.Context, r *http.Request) (any, error) {
	n, err := c.notice(ctx, r)
	return view(n), err
}

// notice returns the notice that the path names.
func (c *Console) notice(ctx context.Context, r *http.Request) (store.Notice, error) {
	page, err := c.Notices.Notices(ctx, store.NoticeQuery{ID: r.PathValue("id")})
	if err == nil && len(page.Notices) == 0 {
		err = store.ErrNoNotice
	}
	if err != nil {
		return store.Notice{}, err
	}
	return page.Notices[0], nil
}

func (c *Console) retryNotice(ctx context.Context, r *http.Request) (any, error) {
	now := store.Time(c.Sessions.Now())
	if err := c.Notices.Retry(ctx, r.PathValue("id"), now, now.Add(retryDeadline)); err != nil {
		return nil, err
	}
	if c.Retried != nil {
		c.Retried()
	}
	c.Log.Info("an operator retries a notice", "event", "notice_retried", "notice", r.PathValue("id"))
	c.record(r, audit.Event{Action: "retry_notice", Reason: "notice " + r.PathValue("id")}, nil)
	return struct{}{}, nil
}

func (c *Console) dropNotice(ctx context.Context, r *http.Request) (any, error) {
	n, err := c.notice(ctx, r)
	if err == nil {
		err = c.Notices.Drop(ctx, n.ID)
	}
	if err != nil {
		return nil, err
	}
	c.Log.Warn("an operator dropped a notice that was not done",
		"event", "notice_dropped", "notice", n.ID, "kind", n.Kind, "target", n.Target, "sub", n.Subject)
	c.record(r, audit.Event{Action: "drop_notice", Issuer: n.Issuer, ClientID: n.ClientID, Subject: n.Subject,
		Reason: fmt.Sprintf("notice %s, %s for %s", n.ID, n.Kind, n.Target)}, nil)
	return struct{}{}, nil
}

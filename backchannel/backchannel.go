package backchannel

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"example.com/curfew/keyring"
	"example.com/curfew/logout"
	"example.com/curfew/oidc"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/store/memory"
	"example.com/curfew/web"
)

// Config is the configuration of a [Handler]. Providers and OnLogout are required.
type Config struct {
	// Providers are those whose logout tokens are taken: of each the issuer, the client ID, the algorithm of ID Tokens
	// and the quirks count.
	Providers []oidc.Config
	// OnLogout is called for each verified logout token. It ends the sessions that the token names, and returns nil when
	// they are gone: the provider is answered 200. That nobody is named is a success too. After an error the answer is
	// 503, nothing was used up, and the provider may send the token again. With the quirk logout_scope=subject a token
	// with both sub and sid leads to two calls: one with the subject alone, one with the sid alone.
	//
	// It must bear being called again with the same token, for instance after a crash, or after an answer that the
	// provider did not get. It is never called with a token that was carried out, nor twice at a time with one token.
	// ctx has a deadline of 10 s, and is not canceled when the provider hangs up.
	OnLogout func(ctx context.Context, t LogoutToken) error

	// Store keeps the marks and the record of tokens; default in memory, for one process whose sessions end with it. The
	// package does not close it.
	Store store.Store

	OnResult   func(channel, provider, result, reason string) // is called for metrics; see [logout.Handler]
	HTTPClient *http.Client                                   // for requests to providers
	Now        func() time.Time                               // default time.Now
	Log        *slog.Logger                                   // default slog.Default()
}

// LogoutToken is a verified logout token (Back-Channel Logout §2.4), for one client.
type LogoutToken struct {
	Issuer   string
	ClientID string
	Subject  string // may be empty; then SID is not
	SID      string // may be empty
	JTI      string
	IssuedAt time.Time
}

// Names reports whether the token names a session with this `sub` and `sid`, of its issuer and client: without a sid
// every session of the subject, without a subject every session with the sid. With both, every session with the sid,
// whatever its subject, and those of the subject that have no sid, which cannot be told apart.
func (t *LogoutToken) Names(subject, sid string) bool {
	who := store.Selector{Issuer: t.Issuer, ClientID: t.ClientID, Subject: t.Subject, SID: t.SID}
	return who.Names(&store.Record{Issuer: t.Issuer, ClientID: t.ClientID, Subject: subject, SID: sid})
}

// SignIn is a sign-in that is about to be completed.
type SignIn struct {
	Issuer   string // `iss` of the ID Token
	ClientID string
	Subject  string // `sub` of the ID Token
	SID      string // `sid` of the ID Token, if it has one
	Began    string // as [Handler.Begin] returned it when this sign-in began
}

// Handler is the endpoint. It may be used concurrently.
type Handler struct {
	http.Handler
	cfg       Config
	providers []*oidc.Provider
	sessions  *session.Manager
	stop      context.CancelFunc
	running   sync.WaitGroup
}

// lease is how long a process may take to carry out a token before another may.
const lease = 30 * time.Second

// New makes the endpoint, and starts its background work, which runs until [Handler.Close] is called or ctx is done.
// The error lists every fault.
func New(ctx context.Context, cfg Config) (*Handler, error) {
	h := &Handler{cfg: cfg}
	var faults []error
	if len(cfg.Providers) == 0 {
		faults = append(faults, errors.New("backchannel: Providers is empty"))
	}
	if cfg.OnLogout == nil {
		faults = append(faults, errors.New("backchannel: OnLogout is missing"))
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	log := cmp.Or(cfg.Log, slog.Default())
	clients := map[[2]string]bool{}
	for i, c := range cfg.Providers {
		c.HTTPClient, c.Now, c.Log = cmp.Or(c.HTTPClient, cfg.HTTPClient), cfg.Now, cmp.Or(c.Log, log)
		p, err := oidc.New(c)
		if err != nil {
			faults = append(faults, fmt.Errorf("backchannel: provider %d: %w", i+1, err))
			continue
		}
		client := [2]string{p.Config().Issuer, p.Config().ClientID}
		if clients[client] {
			faults = append(faults, fmt.Errorf("backchannel: provider %d has the issuer and client of another", i+1))
		}
		clients[client] = true
		h.providers = append(h.providers, p)
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	if h.cfg.Store == nil {
		h.cfg.Store = memory.New()
	}
	ring, err := keyring.Parse(keyring.NewFile()) // nothing that it seals is read again
	if err != nil {
		return nil, err
	}
	h.sessions, err = session.NewManager(session.Config{Store: h.cfg.Store, Keyring: ring, MaxPerSubject: -1,
		MaxStale: -1, Now: cfg.Now, Log: log})
	if err != nil {
		return nil, err
	}
	h.Handler = (&logout.Handler{Site: &web.Site{URL: &url.URL{Scheme: "https", Host: "localhost"}, Log: log},
		Providers: h.providers, Sessions: h.sessions, CarryOut: h.carryOut, OnResult: cfg.OnResult}).Backchannel()
	ctx, h.stop = context.WithCancel(ctx)
	h.running.Go(func() { h.sessions.Run(ctx) })
	return h, nil
}

// Close stops the background work.
func (h *Handler) Close() error {
	h.stop()
	h.running.Wait()
	return nil
}

// Begin returns a stamp for a sign-in that begins now: some letters and digits, which are no secret, but which the
// browser must not be able to change. A sign-in may be under way for [store.AttemptLifetime].
func (h *Handler) Begin(ctx context.Context) (string, error) {
	began, era, err := h.sessions.Begin(ctx)
	if err != nil {
		return "", err
	}
	return strconv.FormatInt(store.Micros(began), 10) + "." + hex.EncodeToString([]byte(era)), nil
}

// Ended reports whether a logout named a sign-in while it was under way, or it was under way for too long. Call it
// after the app has saved its session: see the package. After an error nothing is known, and nobody is let in.
func (h *Handler) Ended(ctx context.Context, n SignIn) (bool, error) {
	micros, text, ok := strings.Cut(n.Began, ".")
	at, err1 := strconv.ParseInt(micros, 10, 64)
	era, err2 := hex.DecodeString(text)
	if !ok || err1 != nil || err2 != nil || n.Subject == "" || oidc.Find(h.providers, n.Issuer, n.ClientID) == nil {
		return false, errors.New("backchannel: the sign-in has no stamp of Begin, no subject, or another issuer or client")
	}
	// A session that is created and removed at once: only that asks for a mark in one step with the times that count.
	_, s, err := h.sessions.Create(ctx, session.SignIn{Issuer: n.Issuer, ClientID: n.ClientID, Subject: n.Subject,
		SID: n.SID, Began: store.FromMicros(at), Era: string(era)})
	switch {
	case errors.Is(err, store.ErrEnded):
		return true, nil
	case err != nil:
		return false, err
	}
	_, err = h.sessions.End(context.WithoutCancel(ctx), store.Ending{Cause: store.CauseExpired, KeepTokens: true,
		Selector: store.Selector{Issuer: n.Issuer, ClientID: n.ClientID, Key: s.Key}})
	return false, err
}

// carryOut carries out a logout token for each client in its `aud` that is ours, each as a step of its own.
func (h *Handler) carryOut(ctx context.Context, t *oidc.LogoutToken) error {
	replayed := 0
	for _, p := range append([]*oidc.Provider{t.Provider}, t.Others...) {
		err := h.once(ctx, t, p)
		switch {
		case errors.Is(err, store.ErrReplayed):
			replayed++
		case err != nil:
			return fmt.Errorf("%w: %w", session.ErrUnavailable, err)
		}
	}
	if replayed > len(t.Others) {
		return store.ErrReplayed
	}
	return nil
}

// The states of a token: payloads of its record.
const (
	working = "working" // a process carries it out, or crashed when it did: free when the lease is over
	free    = "free"    // it could not be carried out, and may come again
	done    = "done"
)

// once carries out a token for one client, unless that was done before. Its record is kept like a session, which nobody
// has and no logout names, since that is what a store keeps durably, creates once and changes only as it was read.
func (h *Handler) once(ctx context.Context, t *oidc.LogoutToken, p *oidc.Provider) error {
	client := p.Config().ClientID
	rec, err := h.claim(ctx, t, client)
	if err != nil {
		return err
	}
	// The mark comes first: a sign-in that asks earlier has saved its session, which OnLogout finds; one that asks later
	// finds the mark.
	token := LogoutToken{t.Issuer, client, t.Subject, t.SID, t.JTI, t.IssuedAt}
	calls := []LogoutToken{token}
	if t.Subject != "" && t.SID != "" && p.Config().Quirks.LogoutScope == "subject" {
		// All sessions of the subject, and those with the sid: they may have another subject here.
		calls = append(calls, token)
		calls[0].SID, calls[1].Subject = "", ""
	}
	for _, c := range calls {
		who := store.Selector{Issuer: c.Issuer, ClientID: client, Subject: c.Subject, SID: c.SID}
		if _, err = h.sessions.End(ctx, store.Ending{Selector: who, Cause: store.CauseBackChannel}); err == nil {
			err = h.cfg.OnLogout(ctx, c)
		}
		if err != nil {
			break
		}
	}
	state := done
	if err != nil {
		state = free
	}
	rec.Payload = []byte(state)
	// The deadline of ctx may have passed. Without this write the record is free after the lease.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	errSaved := h.cfg.Store.Update(ctx, rec, store.Time(h.sessions.Now()))
	return errors.Join(err, errSaved)
}

// claim returns the record of a token, which no other process carries out meanwhile.
func (h *Handler) claim(ctx context.Context, t *oidc.LogoutToken, client string) (store.Record, error) {
	now := store.Time(h.sessions.Now())
	const issuer = "curfew:logout-token" // no issuer is called so
	sum := sha256.Sum256([]byte(strconv.Quote(t.Issuer) + strconv.Quote(client) + strconv.Quote(t.JTI)))
	subject := hex.EncodeToString(sum[:])
	tag := store.Tag(issuer, client, subject)
	var key store.Key
	copy(key[:], append(tag[:], sum[:]...))
	rec, err := h.cfg.Store.Find(ctx, key, now)
	switch {
	case errors.Is(err, store.ErrNotFound):
		until := store.Time(t.Remember.Add(lease)) // it may come in its last moment, and is then carried out
		rec = store.Record{Key: key, Issuer: issuer, ClientID: client, Subject: subject, Created: now, LastSeen: now,
			IdleExpires: until, Expires: until, Payload: []byte(working), Revision: 1}
		return rec, h.cfg.Store.Create(ctx, rec, now, now)
	case err != nil:
		return rec, err
	case string(rec.Payload) == done:
		return rec, store.ErrReplayed
	case string(rec.Payload) == working && now.Before(rec.LastSeen.Add(lease)):
		return rec, errors.New("another request is carrying out this token")
	}
	rec.LastSeen, rec.Payload = now, []byte(working)
	if err := h.cfg.Store.Update(ctx, rec, now); err != nil {
		return rec, err
	}
	rec.Revision++
	return rec, nil
}

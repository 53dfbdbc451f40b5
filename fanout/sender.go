package fanout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"example.com/curfew/internal/wait"
	"example.com/curfew/keyring"
	"example.com/curfew/oidc"
	"example.com/curfew/session"
	"example.com/curfew/store"
)

const (
	defaultLease      = 30 * time.Second
	defaultPoll       = 2 * time.Second
	revokeConcurrency = 4
	unknownEvery      = time.Minute
)

// Config is the configuration of a [Sender]. Outbox is required, and with Apps also Issuer and Signer.
type Config struct {
	Outbox store.Outbox // keeps the notices; every [store.Store] is one
	Issuer string       // `iss` of the logout tokens
	Signer Signer       // signs the logout tokens: [Keys], or [OneKey]
	Apps   []App        // the apps that are notified; see also [Sender.SetApps]

	Providers []*oidc.Provider // the providers at which tokens are revoked
	Keyring   *keyring.Keyring // opens the tokens of sessions; required with Providers

	// PublicOnly refuses to connect to loopback, private and other special addresses. Set it if strangers can choose
	// the addresses of apps.
	PublicOnly bool

	// Lease is how long a replica holds a notice, and so how long the notices of one that crashed wait; default 30 s,
	// and twice that for revocations.
	Lease time.Duration
	Poll  time.Duration    // how often to look for notices of other replicas; default 2 s
	Now   func() time.Time // default time.Now
	Log   *slog.Logger     // default slog.Default()
	// OnAttempt is called after each attempt. All arguments are fit for labels of metrics.
	OnAttempt func(kind store.NoticeKind, target, result string)
	Tracer    trace.TracerProvider // for the spans of attempts; nil: there are none
}

// Sender sends notices, each until it is done or given up. [New] makes it and [Sender.Run] runs it. It is safe for
// concurrent use.
type Sender struct {
	cfg  Config
	http *http.Client

	mu      sync.Mutex
	apps    map[string]App
	order   []string
	former  []string      // names that providers had before
	changed chan struct{} // closed and replaced when the apps or former names change
	queues  map[queueName]*queue
	traces  traces
}

type queueName struct {
	kind   store.NoticeKind
	target string
}

// New checks the configuration. The error lists every fault. Nothing is sent before [Sender.Run].
func New(cfg Config) (*Sender, error) {
	var faults []error
	if cfg.Outbox == nil {
		faults = append(faults, errors.New("fanout: Outbox is missing"))
	}
	if len(cfg.Providers) > 0 && cfg.Keyring == nil {
		faults = append(faults, errors.New("fanout: Keyring is missing: without it nothing can be revoked"))
	}
	if cfg.Lease < 0 || cfg.Poll < 0 {
		faults = append(faults, errors.New("fanout: Lease and Poll must not be negative"))
	}
	cfg.Lease = cmp.Or(cfg.Lease, defaultLease)
	cfg.Poll = cmp.Or(cfg.Poll, defaultPoll)
	cfg.Log = cmp.Or(cfg.Log, slog.Default())
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Sender{cfg: cfg, http: client(cfg.PublicOnly), changed: make(chan struct{}),
		queues: make(map[queueName]*queue)}
	if err := s.SetApps(cfg.Apps); err != nil {
		faults = append(faults, err)
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return s, nil
}

// rename has the revocations tried that a provider left under a name that it has no more.
func (s *Sender) rename(former string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Contains(s.former, former) {
		return
	}
	s.cfg.Log.Info("revocations that wait for a provider under a former name are tried", "event", "provider_renamed",
		"former", former)
	s.former = append(s.former, former)
	close(s.changed)
	s.changed = make(chan struct{})
}

// SetApps replaces the apps; it may be called while the sender runs. Notices for an app that is gone wait until it is
// back, or for their deadline. The error lists every fault; nothing has changed then.
func (s *Sender) SetApps(apps []App) error {
	faults := []error{CheckApps(apps)}
	known, order := make(map[string]App, len(apps)), make([]string, 0, len(apps))
	for _, a := range apps {
		if a.Scope == ScopeSubject && s.severalIssuers() {
			faults = append(faults, fmt.Errorf("app %q: logout_scope: subject needs a single issuer: with several "+
				"the same subject may be somebody else", a.ClientID))
		}
		known[a.ClientID] = a.withDefaults()
		order = append(order, a.ClientID)
	}
	if len(apps) > 0 && (s.cfg.Signer == nil || s.cfg.Issuer == "") {
		faults = append(faults, errors.New("fanout: Issuer and Signer are required with Apps"))
	}
	if err := errors.Join(faults...); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.apps, s.order = known, order
	close(s.changed)
	s.changed = make(chan struct{})
	return nil
}

// CheckApps returns the faults of each app, and of those that are there twice.
func CheckApps(apps []App) error {
	var faults []error
	known := make(map[string]bool, len(apps))
	for _, a := range apps {
		faults = append(faults, a.Validate())
		if known[a.ClientID] {
			faults = append(faults, fmt.Errorf("app %q: is there twice", a.ClientID))
		}
		known[a.ClientID] = true
	}
	return errors.Join(faults...)
}

func (s *Sender) app(clientID string) (App, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, ok := s.apps[clientID]
	return a, ok
}

func (s *Sender) allApps() []App {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]App, len(s.order))
	for i, id := range s.order {
		all[i] = s.apps[id]
	}
	return all
}

// Logout is a sign-out that one app is notified of (Back-Channel Logout §2.4): Subject, SID or both, as that app knows
// them. ClientID is that of the app.
type Logout struct {
	ClientID string
	Subject  string
	SID      string
}

// Notify queues a notice for each of these logouts, all of them or none. After it has returned nil, the notices are as
// durable as the store, and [Sender.Run] on any replica sends them.
func (s *Sender) Notify(ctx context.Context, logouts ...Logout) error {
	now := store.Time(s.cfg.Now())
	notices := make([]store.Notice, len(logouts))
	for i, l := range logouts {
		app, known := s.app(l.ClientID)
		switch {
		case !known:
			return fmt.Errorf("fanout: there is no app %q", l.ClientID)
		case l.Subject == "" && l.SID == "":
			return fmt.Errorf("fanout: a logout at %q that names nobody", l.ClientID)
		case l.SID == "" && app.SessionRequired:
			return fmt.Errorf("fanout: a logout at %q without the sid that it requires", l.ClientID)
		}
		notices[i] = store.Notice{
			Kind: store.NoticeLogout, Target: l.ClientID, Issuer: s.cfg.Issuer, ClientID: l.ClientID,
			Subject: l.Subject, SID: l.SID, Cause: store.CauseUser,
			Created: now, Due: now, Deadline: now.Add(app.Deadline),
		}
	}
	return s.enqueue(ctx, notices)
}

// enqueue adds notices to the outbox and wakes the queues.
func (s *Sender) enqueue(ctx context.Context, notices []store.Notice) error {
	if err := s.cfg.Outbox.Enqueue(ctx, notices); err != nil {
		return err
	}
	s.Wake()
	return nil
}

// Revoke queues a notice to revoke tokens of a session that has ended, in addition to those that its ending left.
func (s *Sender) Revoke(ctx context.Context, provider string, about *session.Session, t session.Tokens) error {
	payload, err := session.NoticePayload(s.cfg.Keyring, about, t)
	if err != nil {
		return err
	}
	now := store.Time(s.cfg.Now())
	return s.enqueue(ctx, []store.Notice{{
		Kind: store.NoticeRevoke, Target: provider, Issuer: about.Issuer, ClientID: about.ClientID,
		Subject: about.Subject, SID: about.SID, Key: about.Key, Payload: payload,
		Created: now, Due: now, Deadline: now.Add(defaultDeadline),
	}})
}

// orphanTimeout bounds how long Orphaned may take after its caller has gone.
const orphanTimeout = 10 * time.Second

// Orphaned queues a notice to revoke tokens that no session holds; see [session.Notifier]. It goes on after the browser
// has disconnected, since the tokens are known nowhere else.
func (s *Sender) Orphaned(ctx context.Context, about *session.Session, t session.Tokens) {
	p := oidc.Find(s.cfg.Providers, about.Issuer, about.ClientID)
	if p == nil || t.RefreshToken == "" || t.Offline && !p.Config().RevokeOffline {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), orphanTimeout)
	defer cancel()
	if err := s.Revoke(ctx, p.Name(), about, t); err != nil {
		s.cfg.Log.WarnContext(ctx, "a refresh token that no session holds will not be revoked",
			"event", "revocation_failed", "provider", p.Name(), "session", about.Key.Handle(), "error", err)
	}
}

// Expired queues notices to revoke the tokens of sessions that have expired; see [session.Notifier].
func (s *Sender) Expired(ctx context.Context, records []store.Record) error {
	now := store.Time(s.cfg.Now())
	var notices []store.Notice
	for _, r := range records {
		p := oidc.Find(s.cfg.Providers, r.Issuer, r.ClientID)
		if p == nil || r.Refresh == store.RefreshNone ||
			r.Refresh == store.RefreshOffline && !p.Config().RevokeOffline {
			continue
		}
		notices = append(notices, store.Notice{
			Kind: store.NoticeRevoke, Target: p.Name(), Issuer: r.Issuer, ClientID: r.ClientID,
			Subject: r.Subject, SID: r.SID, Key: r.Key, Cause: store.CauseExpired, Payload: r.Payload,
			Created: now, Due: now, Deadline: now.Add(defaultDeadline),
		})
	}
	if len(notices) == 0 {
		return nil
	}
	return s.enqueue(ctx, notices)
}

// Plan returns the notices that an ending leaves; see [session.Notifier]. It alone decides this, whatever ends the
// session.
//
// Nothing is revoked if the provider has rejected the token already. With [store.Ending.KeepTokens] nothing is revoked
// now: the session that replaces this one has taken over its tokens.
func (s *Sender) Plan(e store.Ending) []store.NoticeRequest {
	now := store.Time(s.cfg.Now())
	var plan []store.NoticeRequest
	for _, a := range s.allApps() {
		if (e.Cause == store.CauseReplaced || e.Cause == store.CauseCapped) && a.Scope == ScopeSubject {
			continue // the person is still signed in
		}
		plan = append(plan, store.NoticeRequest{
			Kind: store.NoticeLogout, Target: a.ClientID, Deadline: now.Add(a.Deadline),
			PerSession: a.SessionRequired || s.severalIssuers(),
		})
	}
	if e.Cause == store.CauseRefreshRejected || e.KeepTokens {
		return plan
	}
	if p := oidc.Find(s.cfg.Providers, e.Selector.Issuer, e.Selector.ClientID); p != nil {
		plan = append(plan, store.NoticeRequest{Kind: store.NoticeRevoke, Target: p.Name(),
			Offline: e.RevokeOffline || p.Config().RevokeOffline, Deadline: now.Add(defaultDeadline)})
	}
	return plan
}

// severalIssuers reports whether the same subject may be another person at another issuer.
func (s *Sender) severalIssuers() bool {
	return slices.ContainsFunc(s.cfg.Providers,
		func(p *oidc.Provider) bool { return p.Config().Issuer != s.cfg.Providers[0].Config().Issuer })
}

// Wake makes every queue look for notices now, because some have just been queued.
func (s *Sender) Wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.queues {
		l.wake()
	}
}

// Retry is [Sender.Wake], also for targets that are not tried for now since they did not answer.
func (s *Sender) Retry() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.queues {
		l.breaker.release()
		l.wake()
	}
}

// Run sends notices until ctx is done. It then finishes the attempts under way, gives back what it holds, and returns.
// Several replicas may run on one store.
func (s *Sender) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer s.http.CloseIdleConnections()
	defer running.Wait()
	running.Go(func() { s.warnUnrevocable(ctx) })
	running.Go(func() { s.expireUnknown(ctx) })
	stops := make(map[queueName]context.CancelFunc)
	for ctx.Err() == nil {
		s.mu.Lock()
		changed := s.changed
		wanted := make(map[queueName]*queue)
		for _, p := range s.cfg.Providers {
			wanted[queueName{store.NoticeRevoke, p.Name()}] = s.revocationQueue(p.Name())
		}
		for _, name := range s.former {
			wanted[queueName{store.NoticeRevoke, name}] = s.revocationQueue(name)
		}
		for id, a := range s.apps {
			wanted[queueName{store.NoticeLogout, id}] = s.appQueue(a)
		}
		for name, l := range s.queues {
			if w := wanted[name]; w == nil || w.width != l.width {
				stops[name]()
				delete(s.queues, name)
			}
		}
		for name, l := range wanted {
			if s.queues[name] == nil {
				s.queues[name] = l
				var queueCtx context.Context
				queueCtx, stops[name] = context.WithCancel(ctx)
				running.Go(func() { l.run(queueCtx) })
			}
		}
		s.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, stop := range stops {
		stop()
	}
	clear(s.queues)
}

func (s *Sender) appQueue(a App) *queue {
	return s.newQueue(queueName{store.NoticeLogout, a.ClientID}, a.Concurrency, s.cfg.Lease,
		func(ctx context.Context, n store.Notice) result {
			app, known := s.app(n.Target) // as it is now
			if !known {
				return result{verdict: internal, name: "internal", reason: unknownReason}
			}
			return s.deliver(ctx, app, n)
		})
}

func (s *Sender) revocationQueue(target string) *queue {
	return s.newQueue(queueName{store.NoticeRevoke, target}, revokeConcurrency, 2*s.cfg.Lease,
		func(ctx context.Context, n store.Notice) result {
			return s.revoke(ctx, oidc.Find(s.cfg.Providers, n.Issuer, n.ClientID), n)
		})
}

func (s *Sender) newQueue(name queueName, width int, lease time.Duration,
	try func(context.Context, store.Notice) result) *queue {
	return &queue{s: s, kind: name.kind, target: name.target, width: width, lease: lease, try: try,
		woken: make(chan struct{}, 1)}
}

const unknownReason = "nobody of this name is configured"

// expireUnknown gives up the notices of targets that are no longer configured, after their deadline. Until then they
// wait: another replica or a later configuration may know the target. They are due again long before the next look of
// this replica, else it would take them from a replica that knows the target each time.
func (s *Sender) expireUnknown(ctx context.Context) {
	for wait.Sleep(ctx, unknownEvery); ctx.Err() == nil; wait.Sleep(ctx, unknownEvery) {
		all, err := s.cfg.Outbox.Stats(ctx)
		if err != nil {
			continue // a failing Claim is logged
		}
		for _, t := range all {
			s.mu.Lock()
			known := s.queues[queueName{t.Kind, t.Target}] != nil
			s.mu.Unlock()
			if known || t.Pending == 0 {
				continue
			}
			l := s.newQueue(queueName{t.Kind, t.Target}, 1, s.cfg.Lease, nil)
			now := s.cfg.Now()
			notices, err := s.cfg.Outbox.Claim(ctx, t.Kind, t.Target, store.Time(now), s.cfg.Lease, 100)
			for _, n := range notices {
				if t.Kind == store.NoticeRevoke && oidc.Find(s.cfg.Providers, n.Issuer, n.ClientID) != nil {
					s.rename(t.Target)
				}
				if now.Before(n.Deadline) {
					l.complete(context.WithoutCancel(ctx), n,
						store.Outcome{RetryAt: now.Add(unknownEvery / 10), Untried: true, Reason: unknownReason})
				} else {
					l.report(context.WithoutCancel(ctx), n,
						result{verdict: expired, name: "expired", reason: unknownReason}, now)
				}
			}
			if err != nil {
				break
			}
		}
	}
}

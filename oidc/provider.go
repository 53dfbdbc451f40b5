package oidc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/time/rate"

	"example.com/curfew/internal/guard"
)

// Provider is one OpenID Provider, as one of its clients sees it. It is safe for concurrent use.
//
// It keeps two documents of the provider's, its metadata and its keys, fetched on first need and renewed in the
// background. Each fetch is bounded in time and size and ends by itself, so there is nothing to close.
type Provider struct {
	cfg       Config
	alg       *algorithm // of ID Tokens
	logoutAlg *algorithm // of logout tokens
	infoAlg   *algorithm // of userinfo that is signed
	// of authorization responses that are signed
	responseAlg *algorithm
	meta        *cached[*Metadata]
	keys        *keySet
	asking      chan struct{} // holds one for each access token that is being asked about
	troubles    troubles
	nonces      sync.Map               // the last DPoP nonce of an endpoint, by its URL
	silent      atomic.Bool            // the metadata could not be fetched when that was last tried
	pushes      *rate.Limiter          // of authorization requests
	barred      atomic.Pointer[string] // why the token endpoint does not take this client; nil when it does
}

// New makes a Provider. It asks nothing of the network: discovery happens on first need, once for all callers that
// wait, and again after a failure, at most once a second. The error holds every fault of the configuration at once.
func New(c Config) (*Provider, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	p := &Provider{cfg: c, pushes: rate.NewLimiter(rate.Every(pushEvery), pushBurst),
		asking: make(chan struct{}, askAtOnce)}
	var err error
	if p.alg, err = findAlgorithm(c.SigningAlg); err != nil {
		return nil, err
	}
	if p.logoutAlg, err = findAlgorithm(c.Quirks.LogoutSigningAlg); err != nil {
		return nil, err
	}
	if p.infoAlg, err = findAlgorithm(cmp.Or(c.UserinfoSigningAlg, c.SigningAlg)); err != nil {
		return nil, err
	}
	if p.responseAlg, err = findAlgorithm(cmp.Or(c.ResponseSigningAlg, c.SigningAlg)); err != nil {
		return nil, err
	}
	if p.cfg.HTTPClient.Transport, err = c.withCertificate(c.HTTPClient.Transport); err != nil {
		return nil, fmt.Errorf("provider %s: %w", quote(c.Name), err)
	}
	p.meta = &cached[*Metadata]{fetch: guarded(c.Log, p.discover), now: c.Now, fresh: metadataFresh}
	p.keys = newKeySet(guarded(c.Log, p.fetchKeys), c.Now, func() { c.OnKeyFetch(c.Name, "refused") })
	return p, nil
}

// guarded has a panic in a fetch be its error: it calls the app's HTTP client and observer, and serves no request.
func guarded[T any](log *slog.Logger, fetch func(context.Context) (T, error)) func(context.Context) (T, error) {
	return func(ctx context.Context) (v T, err error) {
		defer guard.Recover(log, "a fetch", &err)
		return fetch(ctx)
	}
}

// Config returns the configuration, with its defaults filled in.
func (p *Provider) Config() Config { return p.cfg }

// Name returns what the provider is called here.
func (p *Provider) Name() string { return p.cfg.Name }

// Label returns the name of the provider for people: [Config.Label], or the host of the issuer.
func (p *Provider) Label() string {
	if u, err := url.Parse(p.cfg.Issuer); err == nil && p.cfg.Label == "" {
		return u.Host
	}
	return p.cfg.Label
}

func (p *Provider) String() string   { return p.cfg.String() }
func (p *Provider) GoString() string { return p.cfg.String() }

// Ready returns nil when metadata and keys are here, and asks for them if not. The error is an [ErrUnavailable].
func (p *Provider) Ready(ctx context.Context) error {
	if _, err := p.meta.get(ctx); err != nil {
		return err
	}
	_, err := p.keys.docs.get(ctx)
	return err
}

// Keys returns the keys that the provider publishes, those that are not used with the registered algorithm too.
func (p *Provider) Keys(ctx context.Context) ([]KeyInfo, error) {
	keys, err := p.keys.docs.get(ctx)
	if err != nil {
		return nil, err
	}
	all := keys.all()
	infos := make([]KeyInfo, len(all))
	algs := []*algorithm{p.alg, p.logoutAlg, p.infoAlg}
	if b := p.cfg.Bearer; b != nil {
		for _, name := range b.SigningAlgs {
			if a, err := findAlgorithm(name); err == nil {
				algs = append(algs, a)
			}
		}
	}
	for i := range all {
		infos[i] = all[i].info
		for _, a := range algs {
			problem := all[i].problemWith(a)
			switch {
			case problem != "" && infos[i].Problem == "":
				infos[i].Problem = problem
			case problem != "":
			case !slices.Contains(infos[i].For, a.name):
				infos[i].For = append(infos[i].For, a.name)
			}
		}
		if len(infos[i].For) > 0 {
			infos[i].Problem = ""
		}
	}
	return infos, nil
}

var errNoMetadata = errors.New("where they are is not known")

// fetchKeys gets the keys from where the metadata says (Discovery §3, `jwks_uri`).
func (p *Provider) fetchKeys(ctx context.Context) (keysByID, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	keys, err := func() (keysByID, error) {
		m, err := p.meta.get(ctx)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errNoMetadata, err)
		}
		d, err := p.getDocument(ctx, m.JWKSURI)
		if err != nil {
			return nil, fmt.Errorf("its keys: %w", err)
		}
		keys, err := parseKeys(d.body)
		if err != nil {
			return nil, fmt.Errorf("its keys at %s: %w", m.JWKSURI, d.unlike(err))
		}
		return keys, nil
	}()
	if err != nil {
		p.meta.expire() // they may have moved
		p.cfg.OnKeyFetch(p.cfg.Name, "error")
		if !errors.Is(err, errNoMetadata) { // which is told by itself
			p.report(troubleKeys, "keys", err)
		}
		return nil, err
	}
	p.report(troubleKeys, "keys", nil)
	p.cfg.OnKeyFetch(p.cfg.Name, "ok")
	return keys, nil
}

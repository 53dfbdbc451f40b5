package gateway

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"example.com/curfew/internal/guard"
	"example.com/curfew/oidc"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/web"
)

// Bearer has access tokens of clients taken in the Authorization header (RFC 6750, RFC 9449), beside the cookies of
// browsers. Each becomes a session (see [session.Manager.Admit]), to which policy, identity headers and assertions
// apply. If a request has a token, its cookie is not looked at.
type Bearer struct {
	Providers []*oidc.Provider // those without an [oidc.Config.Bearer] are not looked at
	Lifetime  time.Duration    // a token that lives longer is refused
	// Claims returns the claims of the session, or an error that refuses the token, unless Temporary says that the request
	// may be tried again.
	Claims    func(ctx context.Context, p *oidc.Provider, claims map[string]any) (map[string]any, error)
	Temporary func(error) bool
	// CertificateHeader names the header in which a trusted proxy says with which certificate the client connected, for
	// tokens that are bound to one (RFC 8705 §3): in PEM form, URL-encoded or not, as base64, as RFC 9440 writes it, or
	// as X-Forwarded-Client-Cert. The proxy must remove what the client sends under this name.
	CertificateHeader string
	// Observe is called for each token that was verified: "ok", "refused", "ended" or "unavailable". provider is empty if
	// it is not known whose the token is. It may be nil.
	Observe func(provider, result string)

	flight guard.Group
	mu     sync.Mutex
	known  *simplelru.LRU[[sha256.Size]byte, *knownToken]
}

const (
	maxAccessToken = 16 << 10 // bytes
	mostTokens     = 100_000  // that are remembered
	// askAgain is how old an introspection may be: a token may be revoked without a logout.
	askAgain      = time.Minute
	verifyTimeout = 10 * time.Second
)

// knownToken is a token that was verified. It is found by a hash of the whole token.
type knownToken struct {
	ended    bool // for good; the rest is not set then
	key      store.Key
	token    *oidc.AccessToken // without its claims
	keys     int               // [oidc.Provider.KeysSeen] when it was verified
	verified time.Time
}

// fresh reports whether the token need not be verified again.
func (k *knownToken) fresh(now time.Time) bool {
	if !now.Before(k.token.Expiry) {
		return false
	}
	if k.token.Opaque {
		age := now.Sub(k.verified)
		return age >= 0 && age < askAgain
	}
	return k.keys == k.token.Provider.KeysSeen()
}

// asked is the request that is decided about.
type asked struct {
	method, target string
	origin         string // of its URL; empty if that is not known
	public         bool   // a public path: nobody need be signed in, and a token may be the app's own
	optional       bool   // for [Handler.Optional]: nobody need be signed in
	fromProxy      bool   // its headers are those that a proxy set
}

// challenged is a refusal that a client of an API can read from WWW-Authenticate (RFC 6750 §3).
type challenged struct {
	*web.Failure
	challenge string
}

func (c *challenged) Unwrap() error { return c.Failure }

// challenge returns a refusal with an error code of RFC 6750 §3.1 or RFC 9449 §7.1. The client is told text, the log
// why.
func challenge(status int, scheme, code, text string, why error, more ...string) error {
	params := append([]string{`error="` + code + `"`, `error_description="` + text + `"`}, more...)
	return &challenged{
		Failure: &web.Failure{Status: status, Message: web.Message{Text: text}, Err: why, Event: "bearer_refused",
			Attrs: []slog.Attr{slog.String("code", code)}},
		challenge: scheme + " " + strings.Join(params, ", "),
	}
}

// credentials returns the access token of a request and its scheme, "Bearer" or "DPoP"; both are empty if there is
// none. Other schemes are none of ours: the app gets them.
func credentials(r *http.Request) (scheme, token string, err error) {
	values := r.Header["Authorization"]
	malformed := func(text string) (string, string, error) {
		return "", "", challenge(http.StatusBadRequest, "Bearer", "invalid_request", text, nil)
	}
	switch {
	case len(values) == 0:
		return "", "", nil
	case len(values) > 1:
		return malformed("There are several Authorization headers.")
	}
	v := strings.TrimLeft(values[0], " \t")
	end := strings.IndexFunc(v, func(c rune) bool {
		return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
			strings.ContainsRune("!#$%&'*+-.^_`|~", c))
	})
	if end < 0 {
		end = len(v)
	}
	switch {
	case strings.EqualFold(v[:end], "Bearer"):
		scheme = "Bearer"
	case strings.EqualFold(v[:end], "DPoP"):
		scheme = "DPoP"
	default:
		return "", "", nil
	}
	token = strings.TrimRight(strings.TrimLeft(v[end:], " "), " ")
	if len(token) > maxAccessToken {
		return "", "", &web.Failure{Status: http.StatusRequestHeaderFieldsTooLarge,
			Message: web.Message{Text: "The access token is too long."}, Event: "bearer_refused"}
	}
	if !strings.HasPrefix(v[end:], " ") || !isToken68(token) {
		return malformed("The Authorization header is malformed.")
	}
	return scheme, token, nil
}

// isToken68 reports whether s has the syntax of RFC 6750 §2.1 and RFC 9110 §11.2.
func isToken68(s string) bool {
	s = strings.TrimRight(s, "=")
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool {
		return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune("-._~+/", c))
	})
}

// byToken returns the session of the access token of a request. has reports whether there is a token, which then
// decides alone. On a public path, and for Optional, a token that is not good is none: it may be for the app.
func (h *Handler) byToken(r *http.Request, a asked) (s *session.Session, has bool, err error) {
	if h.Bearer == nil {
		return nil, false, nil
	}
	scheme, token, err := credentials(r)
	if err != nil {
		return nil, true, err
	}
	if token == "" {
		return nil, false, nil
	}
	if (a.public || a.optional) && strings.Count(token, ".") < 2 { // not to be shown to the provider
		return nil, true, nil
	}
	s, err = h.checkToken(r, a, scheme, token)
	c, refused := errors.AsType[*challenged](err)
	if refused && (a.public || a.optional) && c.Status != http.StatusBadRequest {
		return nil, true, nil
	}
	if err != nil {
		return nil, true, err
	}
	own := *s
	own.Tokens.AccessToken = token
	return &own, true, nil
}

func (h *Handler) checkToken(r *http.Request, a asked, scheme, token string) (*session.Session, error) {
	b, now := h.Bearer, h.Sessions.Now()
	sum := sha256.Sum256([]byte(token))
	invalid := func(why error) error {
		return challenge(http.StatusUnauthorized, scheme, "invalid_token", "The access token is not valid here.", why)
	}
	known := b.find(sum)
	var s *session.Session
	var err error
	switch {
	case known == nil:
	case known.ended:
		return nil, invalid(store.ErrEnded)
	case known.fresh(now):
		if s, err = h.Sessions.Token(r.Context(), known.key); err != nil && !errors.Is(err, store.ErrNotFound) {
			return nil, unchecked(err)
		}
	}
	if s == nil {
		known, s, err = h.admit(r.Context(), sum, token, known, now)
		var e *oidc.Error
		switch {
		case errors.As(err, &e), errors.Is(err, store.ErrEnded):
			return nil, invalid(err)
		case errors.Is(err, errRefused):
			return nil, challenge(http.StatusForbidden, scheme, "insufficient_scope",
				"The access token does not let anybody in here.", err)
		case err != nil:
			return nil, unchecked(err)
		}
	}
	t := known.token
	if t.CertificateHash != "" {
		got := h.certificate(r, a)
		if subtle.ConstantTimeCompare([]byte(got), []byte(t.CertificateHash)) != 1 {
			return nil, invalid(errors.New("the token is bound to a certificate, and the client did not connect with it, " +
				"or no trusted proxy says so (client_certificate_header)"))
		}
	}
	switch {
	case t.JKT == "" && scheme == "DPoP":
		return nil, invalid(errors.New("the token came with the scheme DPoP, and is not bound to a key"))
	case t.JKT != "" && scheme != "DPoP":
		return nil, invalid(errors.New("the token is bound to a key, and came as a plain bearer token"))
	case t.JKT != "":
		if err := h.checkProof(r, a, token, t.JKT, now); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// errRefused means that the claims of a token do not let anybody in.
var errRefused = errors.New("the claims of the token are not as required")

// admit verifies a token and keeps its session, once for all requests that have it at the same time.
func (h *Handler) admit(ctx context.Context, sum [sha256.Size]byte, token string, before *knownToken, now time.Time,
) (*knownToken, *session.Session, error) {
	b := h.Bearer
	log := cmp.Or(h.Site.Log, slog.Default())
	done := b.flight.DoChan(log, "an access token", string(sum[:]), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), verifyTimeout)
		defer cancel()
		t, err := oidc.VerifyAccessToken(ctx, b.Providers, token, b.Lifetime, now)
		if err != nil {
			if _, final := errors.AsType[*oidc.Error](err); final && h.revoked(ctx, before, err) {
				b.forget(sum) // not before that: the next request tries it again
			}
			b.observe("", err)
			return nil, err
		}
		p := t.Provider.Config()
		content := token
		if !t.Opaque {
			content = token[:strings.LastIndexByte(token, '.')] // see session.TokenKey
		}
		known := &knownToken{token: t, keys: t.Provider.KeysSeen(), verified: now,
			key: session.TokenKey(p.Issuer, p.ClientID, t.Subject, content)}
		_, err = h.Sessions.Token(ctx, known.key)
		if errors.Is(err, store.ErrNotFound) {
			err = h.newToken(ctx, known)
		}
		b.observe(p.Name, err)
		// One that is dated in the future by our clock may be refused now, and admitted a moment later.
		if errors.Is(err, store.ErrEnded) && now.Sub(t.IssuedAt) > time.Minute {
			b.keep(sum, &knownToken{ended: true})
		}
		if err != nil {
			return nil, err
		}
		t.Claims = nil
		b.keep(sum, known)
		return known, nil
	})
	select {
	case r := <-done:
		if r.Err != nil {
			return nil, nil, r.Err
		}
		// This request may have joined when the session had been admitted, and ended.
		known := r.Val.(*knownToken)
		s, err := h.Sessions.Token(ctx, known.key)
		if errors.Is(err, store.ErrNotFound) {
			err = store.ErrEnded
		}
		return known, s, err
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
}

// askAboutToken asks the provider about an opaque token of which a stream is open, if no request did within the last
// minute. It returns after which time to do so again, and [store.ErrNotFound] if the token is good no more.
func (h *Handler) askAboutToken(ctx context.Context, token string, now time.Time) (time.Duration, error) {
	if h.Bearer == nil || token == "" {
		return askAgain, nil
	}
	sum := sha256.Sum256([]byte(token))
	known := h.Bearer.find(sum)
	switch {
	case known == nil && strings.Count(token, ".") >= 2: // a JWT, and forgotten
		return askAgain, nil
	case known == nil:
	case known.ended:
		return 0, store.ErrNotFound
	case !known.token.Opaque:
		return askAgain, nil
	case known.fresh(now):
		return known.verified.Add(askAgain).Sub(now), nil
	}
	_, _, err := h.admit(ctx, sum, token, known, now)
	if errors.Is(err, oidc.ErrInvalidToken) || errors.Is(err, store.ErrEnded) || errors.Is(err, errRefused) {
		err = store.ErrNotFound
	}
	return askAgain, err
}

// newToken keeps the session of a token that was not admitted before.
func (h *Handler) newToken(ctx context.Context, known *knownToken) error {
	t, p := known.token, known.token.Provider.Config()
	claims := t.Claims
	if h.Bearer.Claims != nil {
		var err error
		if claims, err = h.Bearer.Claims(ctx, t.Provider, claims); err != nil {
			if h.Bearer.Temporary != nil && h.Bearer.Temporary(err) {
				return err
			}
			return errors.Join(errRefused, err)
		}
	}
	about := "access token"
	if t.Client != "" {
		about += " of " + web.Clip(t.Client)
	}
	_, err := h.Sessions.Admit(ctx, known.key, session.Token{
		Provider: p.Name, Issuer: p.Issuer, ClientID: p.ClientID, Subject: t.Subject, SID: t.SID, Claims: claims,
		Issued: t.IssuedAt, Expires: t.Expiry, About: about,
	})
	return err
}

// revoked ends the session of a token that was good, and of which the provider now says that it is not: its streams
// end, on every replica. It reports whether that is done, or was not called for.
func (h *Handler) revoked(ctx context.Context, known *knownToken, err error) bool {
	if known == nil || known.ended || !known.token.Opaque || !errors.Is(err, oidc.ErrInvalidToken) {
		return true
	}
	p := known.token.Provider.Config()
	if _, err := h.Sessions.End(ctx, store.Ending{Cause: store.CauseProviderEnded,
		Selector: store.Selector{Issuer: p.Issuer, ClientID: p.ClientID, Key: known.key}}); err != nil {
		cmp.Or(h.Site.Log, slog.Default()).WarnContext(ctx, "the session of a revoked access token could not be ended",
			"event", "bearer_end_failed", "session", known.key.Handle(), "error", err)
		return false
	}
	return true
}

func (b *Bearer) observe(provider string, err error) {
	if b.Observe == nil {
		return
	}
	result := "unavailable"
	_, refused := errors.AsType[*oidc.Error](err)
	switch {
	case err == nil:
		result = "ok"
	case errors.Is(err, store.ErrEnded):
		result = "ended"
	case refused, errors.Is(err, errRefused):
		result = "refused"
	}
	b.Observe(provider, result)
}

func (b *Bearer) find(sum [sha256.Size]byte) *knownToken {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.known == nil {
		return nil
	}
	k, _ := b.known.Get(sum)
	return k
}

func (b *Bearer) keep(sum [sha256.Size]byte, k *knownToken) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.known == nil {
		b.known, _ = simplelru.NewLRU[[sha256.Size]byte, *knownToken](mostTokens, nil) // fails only for sizes below 1
	}
	b.known.Add(sum, k)
}

func (b *Bearer) forget(sum [sha256.Size]byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.known != nil {
		b.known.Remove(sum)
	}
}

// checkProof checks that the client has the key that its token is bound to (RFC 9449 §7), and that no replica has seen
// the proof before (§11.1).
func (h *Handler) checkProof(r *http.Request, a asked, token, jkt string, now time.Time) error {
	invalid := func(why error) error {
		return challenge(http.StatusUnauthorized, "DPoP", "invalid_dpop_proof",
			"The DPoP proof is not valid for this request.", why)
	}
	proofs := r.Header["Dpop"]
	if len(proofs) != 1 {
		return invalid(errors.New("there is not exactly one DPoP header"))
	}
	if a.origin == "" {
		return invalid(errors.New("it is not known which request this is about: have the proxy send X-Forwarded-Uri and " +
			"X-Forwarded-Method, and name it among the trusted proxies"))
	}
	target := a.target
	if target == r.URL.EscapedPath() { // this request, not one that a proxy asks about
		target = requestTarget(r)
	}
	id, err := oidc.VerifyDPoPProof(proofs[0], a.method, a.origin+pathAlone(target), token, jkt, now)
	if err != nil {
		return invalid(err)
	}
	held, err := h.Sessions.ClaimAttempt(r.Context(), id, []byte{1}, 2*oidc.ProofLife)
	switch {
	case err != nil:
		return unchecked(err)
	case held != nil:
		return invalid(errors.New("the proof was used before"))
	}
	return nil
}

// certificate returns the thumbprint of the certificate that the client connected with (RFC 8705 §3.1), or "".
func (h *Handler) certificate(r *http.Request, a asked) string {
	switch {
	case a.fromProxy || h.Site.FromTrustedProxy(r):
		values := r.Header[http.CanonicalHeaderKey(h.Bearer.CertificateHeader)]
		if h.Bearer.CertificateHeader == "" || len(values) != 1 {
			return ""
		}
		return certificateHash(values[0])
	case r.TLS != nil && len(r.TLS.PeerCertificates) > 0:
		return thumbprint(r.TLS.PeerCertificates[0].Raw)
	}
	return ""
}

func thumbprint(der []byte) string {
	sum := sha256.Sum256(der)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// certificateHash returns the thumbprint of the one certificate in a header, or "".
func certificateHash(v string) string {
	if strings.HasPrefix(v, "By=") || strings.HasPrefix(v, "Hash=") { // X-Forwarded-Client-Cert
		if strings.Contains(v, ",") { // of several proxies: which of them is trusted is not known
			return ""
		}
		for part := range strings.SplitSeq(v, ";") {
			if text, ok := strings.CutPrefix(part, "Hash="); ok {
				if sum, err := hex.DecodeString(text); err == nil && len(sum) == sha256.Size {
					return base64.RawURLEncoding.EncodeToString(sum)
				}
			}
		}
		return ""
	}
	if plain, err := url.PathUnescape(v); err == nil {
		v = plain
	}
	if block, _ := pem.Decode([]byte(v)); block != nil && block.Type == "CERTIFICATE" {
		return thumbprint(block.Bytes)
	}
	v, _, _ = strings.Cut(v, ",") // the rest are the CAs
	if inner, ok := strings.CutPrefix(v, ":"); ok {
		v = strings.TrimSuffix(inner, ":") // RFC 9440
	}
	der, err := base64.StdEncoding.DecodeString(strings.TrimSpace(v))
	if err != nil || len(der) == 0 {
		return ""
	}
	return thumbprint(der)
}

// forbidden returns the refusal of a token by the policy.
func forbidden(by *rule, s *session.Session, err error) error {
	if !s.IsToken || err == nil {
		return err
	}
	if up, ok := errors.AsType[stepUpNeeded](err); ok { // RFC 9470 §3
		return &challenged{Failure: &web.Failure{Status: http.StatusUnauthorized,
			Message: web.Message{Text: "A stronger or newer sign-in is needed."}, Event: "bearer_refused",
			Attrs: []slog.Attr{slog.String("session", s.Key.Handle())}}, challenge: up.challenge()}
	}
	f, ok := errors.AsType[*web.Failure](err)
	if !ok || f.Status != http.StatusForbidden {
		return err
	}
	plain := *f
	plain.Message = web.Message{Text: "The access token does not allow this."}
	params := `Bearer error="insufficient_scope", error_description="` + plain.Message.Text + `"`
	if len(by.Scopes) > 0 {
		params += `, scope="` + strings.Join(by.Scopes, " ") + `"`
	}
	return &challenged{Failure: &plain, challenge: params}
}

// hasScope reports whether a token has one of these scopes. Entra calls the claim `scp`.
func hasScope(claims map[string]any, scopes []string) bool {
	for _, name := range []string{"scope", "scp"} {
		var has []string
		switch v := claims[name].(type) {
		case nil:
			continue
		case string:
			has = strings.Fields(v)
		default:
			has = texts(v)
		}
		return slices.ContainsFunc(has, func(s string) bool { return slices.Contains(scopes, s) })
	}
	return false
}

// ofToken reports whether an access token decides about this request, and is to be removed from it.
func ofToken(s *session.Session) bool { return s != nil && s.IsToken }

// originOf returns the origin of the request that a proxy asks about, whose hosts are named: one of a route, or of this
// site.
func (h *Handler) originOf(r *http.Request, named []string) string {
	if !h.Site.SeveralHosts() {
		for _, host := range named {
			if host != "" && !isSiteHost(h.Site.URL, host) {
				return h.Site.URL.Scheme + "://" + strings.ToLower(host)
			}
		}
	}
	return h.here(r).Origin
}

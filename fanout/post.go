package fanout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"example.com/curfew/internal/span"
	"example.com/curfew/store"
)

const (
	postTimeout = 5 * time.Second        // until the status of the answer has arrived
	readTimeout = 250 * time.Millisecond // for the body, which is read only to use the connection again
	maxAnswer   = 16 << 10
)

// client returns a client that does not follow redirects: a token is for one address. With publicOnly it connects only
// to public addresses, whatever name resolves to them.
func client(publicOnly bool) *http.Client {
	dialer := &net.Dialer{Timeout: postTimeout, KeepAlive: 30 * time.Second}
	t := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            dialer.DialContext,
		ForceAttemptHTTP2:      true,
		MaxIdleConnsPerHost:    16,
		IdleConnTimeout:        30 * time.Second,
		TLSHandshakeTimeout:    postTimeout,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true, // the body is not used
	}
	if publicOnly {
		t.Proxy = nil // a proxy would connect instead, without the check
		dialer.ControlContext = func(_ context.Context, _, address string, _ syscall.RawConn) error {
			if a, err := netip.ParseAddrPort(address); err != nil || !isPublic(a.Addr().Unmap()) {
				return errors.New("the address is not public")
			}
			return nil
		}
	}
	noRedirect := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &http.Client{Transport: t, CheckRedirect: noRedirect}
}

// isPublic reports whether an address is on the public Internet, as far as the address shows it.
func isPublic(a netip.Addr) bool {
	if !a.IsGlobalUnicast() || a.IsPrivate() {
		return false
	}
	for _, special := range []string{"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "198.18.0.0/15", "240.0.0.0/4",
		"::/96", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16", "fec0::/10"} {
		if netip.MustParsePrefix(special).Contains(a) {
			return false
		}
	}
	return true
}

// deliver sends an app a logout token (Back-Channel Logout §2.5).
func (s *Sender) deliver(ctx context.Context, app App, n store.Notice) result {
	if n.Key.IsZero() && n.SID == "" && s.severalIssuers() { // there was one when it was left
		return result{verdict: permanent, name: "impossible", reason: "it names a person alone, who may be somebody else " +
			"now that there are several issuers"}
	}
	claims, err := claimsFor(s.cfg.Issuer, app, n, s.cfg.Now())
	if err != nil {
		return result{verdict: permanent, name: "impossible", reason: err.Error()}
	}
	token, err := s.cfg.Signer.Sign(ctx, app.Alg, claims)
	if err != nil {
		return result{verdict: internal, name: "internal", reason: "the token cannot be signed: " + err.Error()}
	}
	return s.post(ctx, app.URI, token)
}

// post sends the token. The result depends on the status alone, and not on the body of the answer.
func (s *Sender) post(ctx context.Context, uri, token string) result {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(postTimeout, func() { cancel(context.DeadlineExceeded) })
	defer late.Stop()
	body := url.Values{"logout_token": {token}}.Encode()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, uri, strings.NewReader(body))
	if err != nil {
		return result{verdict: permanent, name: "impossible", reason: "backchannel_logout_uri is not a URL"}
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Accept", "application/json")
	r.Header.Set("User-Agent", "curfew")
	if s.cfg.Tracer != nil {
		span.Inject(ctx, r.Header)
	}
	resp, err := s.http.Do(r)
	if err != nil {
		return unanswered(ctx, err)
	}
	late.Stop()
	late = time.AfterFunc(readTimeout, func() { cancel(nil) })
	defer late.Stop()
	io.CopyN(io.Discard, resp.Body, maxAnswer)
	resp.Body.Close()
	return resultOf(resp.StatusCode, resp.Header.Get("Retry-After"), s.cfg.Now())
}

// unanswered is the result of a request that had no answer.
func unanswered(ctx context.Context, err error) result {
	if ue, ok := errors.AsType[*url.Error](err); ok { // its text would repeat the URL with its query
		err = ue.Err
	}
	if context.Cause(ctx) == context.DeadlineExceeded {
		return result{verdict: temporary, name: "timeout", reason: fmt.Sprintf("no answer within %v", postTimeout)}
	}
	return result{verdict: temporary, name: "unreachable", reason: "no answer: " + clip(err.Error())}
}

// resultOf returns what an answer means: see the table in docs/fanout.md.
func resultOf(status int, retryAfter string, now time.Time) result {
	r := result{verdict: temporary, name: "error", status: status, reason: fmt.Sprintf("it answered %d", status)}
	switch {
	case status == http.StatusOK || status == http.StatusNoContent: // Back-Channel Logout §2.8
		return result{verdict: done, name: "ok", status: status}
	case status == http.StatusGone:
		r.verdict = permanent
	case status == http.StatusBadRequest || status > 200 && status < 300:
		// By §2.8 an app answers 400 also after a failure that is temporary.
		r.verdict, r.name = refused, "refused"
	case status >= 300 && status < 400:
		r.name, r.reason = "redirect", r.reason+": redirects are not followed"
	}
	r.retryAfter = retryAfterHeader(retryAfter, now)
	return r
}

// retryAfterHeader reads a Retry-After header (RFC 9110 §10.2.3). It ignores an invalid one.
func retryAfterHeader(header string, now time.Time) time.Duration {
	if n, err := strconv.ParseUint(header, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if t, err := http.ParseTime(header); err == nil {
		return max(0, t.Sub(now))
	}
	return 0
}

// clip makes text of others fit for a log line: short, escaped and without a line end.
func clip(s string) string {
	const most = 200
	if len(s) > most {
		s = s[:most] + "…"
	}
	quoted := strconv.QuoteToASCII(s)
	return quoted[1 : len(quoted)-1]
}

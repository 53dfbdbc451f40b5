package oidc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"

	"example.com/curfew/internal/span"
)

const (
	fetchTimeout = 5 * time.Second  // for one document, all included
	callTimeout  = 10 * time.Second // for one call of an endpoint
	maxBody      = 512 << 10        // of whatever a provider answers
)

// answer is what the provider said, read to its end.
type answer struct {
	status int
	media  string
	date   string
	// of a WWW-Authenticate header (RFC 6750 §3)
	challenge string
	nonce     string // DPoP-Nonce (RFC 9449 §8)
	body      []byte
	secrets   []string // of the request, which no error may repeat
}

// httpClient returns a client that follows no redirect: what is asked, and the secrets in it, are for one address.
func (cfg *Config) httpClient(given *http.Client) *http.Client {
	var c http.Client
	if given != nil {
		c = *given
	}
	if c.Transport == nil {
		t := &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: fetchTimeout, KeepAlive: 30 * time.Second}).DialContext,
			ForceAttemptHTTP2:      true,
			MaxIdleConnsPerHost:    16,
			IdleConnTimeout:        30 * time.Second,
			TLSHandshakeTimeout:    fetchTimeout,
			MaxResponseHeaderBytes: 64 << 10,
		}
		c.Transport = t
	}
	c.Transport = cfg.route(c.Transport)
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	c.Jar = nil
	return &c
}

// do sends a request and reads a bounded answer. The error tells where, never what was sent.
func (p *Provider) do(r *http.Request) (*answer, error) {
	r.Header.Set("User-Agent", "curfew")
	where := r.URL.Scheme + "://" + r.URL.Host + r.URL.Path
	ctx, end := span.Start(r.Context(), "provider "+r.Method, trace.SpanKindClient, "curfew.provider", p.cfg.Name,
		"http.request.method", r.Method, "server.address", r.URL.Hostname(), "url.path", r.URL.Path)
	failed := true
	defer func() { end(failed) }()
	// The provider is not told of the trace: it is somebody else's.
	resp, err := p.cfg.HTTPClient.Do(r.WithContext(ctx))
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) { // which would repeat the URL with its query
			err = ue.Err
		}
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return nil, fmt.Errorf("%s: reading the answer: %w", where, err)
	}
	if len(body) > maxBody {
		return nil, fmt.Errorf("%s: the answer has more than %d bytes", where, maxBody)
	}
	failed = resp.StatusCode >= 500
	media, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	return &answer{
		status: resp.StatusCode,
		media:  strings.ToLower(strings.TrimSpace(media)),
		date:   resp.Header.Get("Date"),
		body:   body,

		challenge: strings.Join(resp.Header.Values("WWW-Authenticate"), ", "),
		nonce:     resp.Header.Get("DPoP-Nonce"),
	}, nil
}

// getDocument fetches a public document.
func (p *Provider) getDocument(ctx context.Context, where string) (*answer, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, where, nil)
	if err != nil {
		return nil, fmt.Errorf("%s is not a URL", quote(where))
	}
	r.Header.Set("Accept", "application/json")
	a, err := p.do(r)
	if err == nil && a.status != http.StatusOK {
		err = fmt.Errorf("%s: %s", where, a.describe())
	}
	return a, err
}

// unlike adds to what is wrong with a document what kind it is, if it is not JSON.
func (a *answer) unlike(err error) error {
	if strings.Contains(a.media, "json") {
		return err
	}
	return fmt.Errorf("%w (its type is %s)", err, quote(a.media))
}

// post calls an endpoint with a form, and the client's authentication (RFC 6749 §2.3.1). An error is an
// [ErrUnavailable]; what the endpoint made of it is in the answer.
func (p *Provider) post(ctx context.Context, where string, form url.Values) (*answer, error) {
	return p.postWith(ctx, where, form, nil)
}

// postWith is [Provider.post] with a DPoP proof, if there is a key. When the provider wants its nonce in the proof, the
// request is sent once more: nothing of it was used up (RFC 9449 §8).
func (p *Provider) postWith(ctx context.Context, where string, form url.Values, key *dpopKey) (*answer, error) {
	a, err := p.postOnce(ctx, where, form, key)
	if err == nil && key != nil && a.wantsNonce() {
		a, err = p.postOnce(ctx, where, form, key)
	}
	return a, err
}

func (p *Provider) postOnce(ctx context.Context, where string, form url.Values, key *dpopKey) (*answer, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := p.authenticate(ctx, form); err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, where, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, unavailable("%s is not a URL", quote(where))
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Accept", "application/json")
	p.authenticateHeader(r)
	if key != nil {
		proof, err := p.proof(key, http.MethodPost, where, "")
		if err != nil {
			return nil, err
		}
		r.Header.Set("DPoP", proof)
	}
	a, err := p.do(r)
	if err != nil {
		return nil, unavailable("%w", err)
	}
	p.noteNonce(where, a)
	a.secrets = p.secretsOf(form, r.Header)
	if a.temporary() {
		return nil, unavailable("%w", &Refusal{Status: a.status, sentence: where + ": " + a.describe()})
	}
	return a, nil
}

const noRedirects = "redirects are not followed"

// temporary reports whether the answer means that it may be another one later.
func (a *answer) temporary() bool {
	return a.status >= 500 || a.status == http.StatusTooManyRequests || a.status == http.StatusRequestTimeout
}

func (a *answer) describe() string {
	if a.status >= 300 && a.status < 400 {
		return fmt.Sprintf("it answered %d: %s", a.status, noRedirects)
	}
	return fmt.Sprintf("it answered %d", a.status)
}

// secretsOf returns the secrets of a request, in each form in which they were sent.
func (p *Provider) secretsOf(form url.Values, header http.Header) []string {
	_, basic, _ := strings.Cut(header.Get("Authorization"), " ")
	all := []string{basic, header.Get("DPoP"), p.cfg.ClientSecret}
	for _, name := range []string{"code", "code_verifier", "refresh_token", "token", "client_assertion",
		"id_token_hint"} {
		all = append(all, form.Get(name))
	}
	for _, s := range slices.Clone(all) {
		all = append(all, url.QueryEscape(s))
	}
	return slices.DeleteFunc(all, func(s string) bool { return s == "" })
}

// oauthError reads the error of an answer (RFC 6749 §5.2): its code, and a sentence fit to be shown. A description
// that repeats a secret of the request is left out.
func (a *answer) oauthError() (code, sentence string) {
	sentence = a.describe()
	c, err := decodeObject(a.body)
	if err != nil {
		return "", sentence
	}
	repeats := func(text string) bool {
		return slices.ContainsFunc(a.secrets, func(s string) bool { return strings.Contains(text, s) })
	}
	// The code is a short word, or not shown at all.
	code, _ = c["error"].(string)
	if code == "" || len(code) > 64 || repeats(code) ||
		strings.ContainsFunc(code, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", sentence
	}
	d, _ := c["error_description"].(string)
	if repeats(d) {
		d = ""
	}
	sentence += ": " + quote(code)
	if d != "" {
		sentence += ", " + quote(d)
	}
	return code, sentence
}

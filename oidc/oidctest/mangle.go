package oidctest

import (
	"encoding/json"
	"net/http"
	"net/url"
)

// Mangle is how a provider lies. Each function, if not nil, changes what is about to be said.
type Mangle struct {
	Discovery   func(doc map[string]any)
	JWKS        func(doc map[string]any)
	Authorize   func(request url.Values) (code string)     // an error instead of an answer, if it is not empty
	IDToken     func(*JWT)                                 // those of the token endpoint
	LogoutToken func(*JWT)                                 // those that a logout sends
	Userinfo    func(claims map[string]any)                // before it is signed, if it is
	Tokens      func(grantType string, doc map[string]any) // the answer of the token endpoint
}

// Mangle changes how the provider lies. p.Mangle(func(m *Mangle) { *m = Mangle{} }) makes it honest again.
func (p *Provider) Mangle(f func(*Mangle)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.mangle)
}

func (p *Provider) mangled() Mangle {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mangle
}

// Override answers an endpoint in the provider's place; nil gives it back. The calls are counted all the same.
func (p *Provider) Override(endpoint string, h http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.overrides[endpoint] = h
}

// Status is an answer for [Provider.Override] with nothing but a status.
func Status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// OAuthError is an answer for [Provider.Override] as RFC 6749 §5.2 has it.
func OAuthError(status int, code string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { writeError(w, status, code, "as the test wants it") }
}

// Huge is an answer for [Provider.Override] of so many bytes, which are valid JSON.
func Huge(size int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		chunk := make([]byte, 32<<10)
		for i := range chunk {
			chunk[i] = ' '
		}
		for left := size; left > 0; {
			n, err := w.Write(chunk[:min(left, len(chunk))])
			if err != nil {
				return
			}
			left -= n
		}
		_, _ = w.Write([]byte(`{"keys":[]}`))
	}
}

// Hang is an answer for [Provider.Override] that does not come until the caller has given up.
func Hang() http.HandlerFunc {
	return func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func writeError(w http.ResponseWriter, status int, code, description string) {
	writeJSON(w, status, map[string]any{"error": code, "error_description": description})
}

package fanout

import (
	"net/http"
	"strings"

	"example.com/curfew/web"
)

// Publisher serves the documents by which apps verify our tokens: a discovery document and the public keys.
type Publisher struct {
	Site *web.Site
	Keys *Keys
}

// Issuer returns the `iss` of our tokens: the URL of the prefix, below which [Publisher] serves the discovery document
// (Discovery §4).
func Issuer(s *web.Site) string { return strings.TrimSuffix(s.Absolute(""), "/") }

// Mount registers the routes on mux.
func (p *Publisher) Mount(mux *http.ServeMux) {
	mux.Handle(p.Site.Path("jwks.json"), p.Site.JSON(p.jwks, http.MethodGet))
	mux.Handle(p.Site.Path(".well-known/openid-configuration"), p.Site.JSON(p.metadata, http.MethodGet))
}

func (p *Publisher) jwks(w http.ResponseWriter, r *http.Request) error {
	set, err := p.Keys.Public(r.Context())
	if err != nil {
		return web.Fail(http.StatusServiceUnavailable, "The keys cannot be read at the moment.", err)
	}
	web.WriteJSON(w, http.StatusOK, set)
	return nil
}

// metadata is a discovery document without the endpoints of a sign-in: Curfew signs nobody in for apps (Discovery §3;
// Back-Channel Logout §2.1).
func (p *Publisher) metadata(w http.ResponseWriter, _ *http.Request) error {
	web.WriteJSON(w, http.StatusOK, map[string]any{
		"issuer":                                Issuer(p.Site),
		"jwks_uri":                              p.Site.Absolute("jwks.json"),
		"id_token_signing_alg_values_supported": p.Keys.cfg.Algs,
		"response_types_supported":              []string{},
		"subject_types_supported":               []string{"public"},
		"backchannel_logout_supported":          true,
		"backchannel_logout_session_supported":  true,
	})
	return nil
}

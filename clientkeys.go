package curfew

import (
	"net/http"

	"example.com/curfew/oidc"
	"example.com/curfew/web"
)

// clientKeysRoute returns the route of the public keys of the client of one provider. They are not among the keys of
// jwks.json, which apps trust: what is signed for a provider must not pass for something signed for an app.
func clientKeysRoute(p *oidc.Provider) string { return "client-keys/" + p.Name() }

// mountClientKeys registers a `jwks_uri` for each client that has keys.
func (rp *RP) mountClientKeys(mux *http.ServeMux) {
	for _, p := range rp.providers {
		if !p.HasClientKeys() {
			continue
		}
		mux.Handle(rp.site.Path(clientKeysRoute(p)), rp.site.JSON(
			func(w http.ResponseWriter, _ *http.Request) error {
				web.WriteJSON(w, http.StatusOK, p.ClientKeys())
				return nil
			}, http.MethodGet))
	}
}

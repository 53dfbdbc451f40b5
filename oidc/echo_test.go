package oidc_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"example.com/curfew/oidc"
	"example.com/curfew/oidc/oidctest"
)

// A provider may describe an error with the request that it was about. Neither the error nor the log repeats a secret
// of it, in whatever form it was sent.
func TestNoErrorRepeatsASecretThatAProviderEchoes(t *testing.T) {
	t.Parallel()
	const clientSecret = "a client's s3cret/+ % of 32 bytes"
	for _, method := range []string{oidc.AuthBasic, oidc.AuthPost, oidc.AuthSecretJWT} {
		for _, code := range []string{"invalid_request", "invalid_client"} {
			t.Run(method+" "+code, func(t *testing.T) {
				t.Parallel()
				var logs bytes.Buffer // written by this goroutine alone
				h := build(t, func(_ *oidctest.Client, c *oidc.Config) {
					c.AuthMethod, c.ClientSecret, c.Log = method, clientSecret, slog.New(slog.NewTextHandler(&logs, nil))
				})
				var sent []string // the secrets, as they were sent
				echo := func(pick func(r *http.Request, body string) string) http.HandlerFunc {
					return func(w http.ResponseWriter, r *http.Request) {
						var body bytes.Buffer
						body.ReadFrom(r.Body)
						form, _ := url.ParseQuery(body.String())
						sent = append(sent, clientSecret, url.QueryEscape(clientSecret))
						if _, basic, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok {
							sent = append(sent, basic)
						}
						for _, name := range []string{"code", "code_verifier", "refresh_token", "token", "client_assertion"} {
							if v := form.Get(name); v != "" {
								sent = append(sent, v, url.QueryEscape(v))
							}
						}
						w.Header().Set("Content-Type", "application/json")
						w.WriteHeader(400)
						json.NewEncoder(w).Encode(map[string]string{"error": code,
							"error_description": "not right: " + pick(r, body.String())})
					}
				}
				for what, pick := range map[string]func(r *http.Request, body string) string{
					"the header": func(r *http.Request, _ string) string { return fmt.Sprint(r.Header) },
					"what the header has": func(r *http.Request, _ string) string {
						id, secret, _ := r.BasicAuth()
						return id + ":" + secret
					},
					"the body": func(_ *http.Request, body string) string { return body },
					"what the body has": func(_ *http.Request, body string) string {
						form, _ := url.ParseQuery(body)
						return fmt.Sprint(form)
					},
				} {
					for _, endpoint := range []string{oidctest.Token, oidctest.Revoke, oidctest.Introspect} {
						h.op.Override(endpoint, echo(pick))
					}
					id := oidc.IDToken{Issuer: h.op.Issuer(), ClientID: "app", Subject: "alice"}
					_, err1 := h.rp.Exchange(t.Context(), "the code/+", verifier, callback)
					_, _, err2 := h.rp.Refresh(t.Context(), "the refresh token/+", nil, id, h.Now())
					err3 := h.rp.Revoke(t.Context(), "a token/+", "refresh_token")
					err4 := h.rp.Introspect(t.Context(), "another token/+")
					for i, err := range []error{err1, err2, err3, err4} {
						if err == nil || !strings.Contains(err.Error(), code) {
							t.Fatalf("%s: call %d: %v", what, i+1, err)
						}
						for _, secret := range sent {
							if strings.Contains(err.Error(), secret) || strings.Contains(logs.String(), secret) {
								t.Errorf("%s: call %d: %q is in %v, or in the log: %s", what, i+1, secret, err, logs.String())
							}
						}
					}
				}
			})
		}
	}
}

package oidc_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"example.com/curfew/oidc"
	"example.com/curfew/oidc/oidctest"
)

type panicky struct{}

func (panicky) RoundTrip(*http.Request) (*http.Response, error) { panic("the app fell over") }

// No request waits for a fetch, so nothing else would recover there.
func TestAPanicOfTheAppInAFetchIsAProviderThatCannotBeHad(t *testing.T) {
	t.Parallel()
	p, err := oidc.New(oidc.Config{Issuer: "https://id.example.com", ClientID: "app", ClientSecret: "secret",
		HTTPClient: &http.Client{Transport: panicky{}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Ready(t.Context()); !errors.Is(err, oidc.ErrUnavailable) ||
		!strings.Contains(err.Error(), "the app fell over") {
		t.Errorf("Ready: %v", err)
	}
	op := oidctest.Start(t, oidctest.Config{})
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	p, err = oidc.New(oidc.Config{Issuer: op.Issuer(), ClientID: "app", ClientSecret: "secret",
		HTTPClient: &http.Client{Transport: transport}, OnKeyFetch: func(string, string) { panic("x") }})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Ready(t.Context()); err != nil {
		t.Errorf("whose observer panics: %v", err)
	}
}

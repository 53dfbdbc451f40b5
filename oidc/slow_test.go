package oidc_test

import (
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"example.com/curfew/oidc"
)

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestAProviderThatHangsIsGivenUpAfterFiveSeconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		p, err := oidc.New(oidc.Config{Issuer: "https://id.example.com", ClientID: "app", HTTPClient: &http.Client{
			Transport: transport(func(r *http.Request) (*http.Response, error) {
				asked++
				<-r.Context().Done()
				return nil, r.Context().Err()
			}),
		}})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		wantUnavailable(t, p.Ready(t.Context()), "deadline exceeded")
		if took := time.Since(began); took != 5*time.Second || asked != 1 {
			t.Fatalf("took %v, asked %d times; want 5s, once", took, asked)
		}
		// A call to an endpoint waits no longer either, and the next one is answered from the same failure.
		_, err = p.Exchange(t.Context(), "c", verifier, callback)
		wantUnavailable(t, err, "deadline exceeded")
		if took := time.Since(began); took != 5*time.Second || asked != 1 {
			t.Fatalf("took %v, asked %d times; want no more than before", took, asked)
		}
	})
}

// endless is a body that does not end, and counts what was read of it.
type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) {
	e.read += len(p)
	return len(p), nil
}

func TestAnAnswerWithoutEndIsGivenUp(t *testing.T) {
	t.Parallel()
	body := new(endless)
	p, err := oidc.New(oidc.Config{Issuer: "https://id.example.com", ClientID: "app", HTTPClient: &http.Client{
		Transport: transport(func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}},
				Body: io.NopCloser(body)}, nil
		}),
	}})
	if err != nil {
		t.Fatal(err)
	}
	wantUnavailable(t, p.Ready(t.Context()), "the answer has more than 524288 bytes")
	if body.read > 1<<20 {
		t.Errorf("%d bytes were read", body.read)
	}
}

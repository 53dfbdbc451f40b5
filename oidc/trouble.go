package oidc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
)

// troubles are the kinds of trouble with a provider that have been logged and are not over.
type troubles struct {
	mu   sync.Mutex
	told map[string]bool
}

// The kinds of trouble. Each is an event of the log, with ".failed" after it.
const (
	troubleKeys     = "oidc.keys"
	troubleToken    = "oidc.token"
	troubleIDToken  = "oidc.id_token"
	troubleUserinfo = "oidc.userinfo"
)

// report logs trouble of one kind, with what to do: once, until it is over, which a nil error says.
func (p *Provider) report(kind, what string, err error) {
	p.troubles.mu.Lock()
	told := p.troubles.told[kind]
	if err == nil && !told || err != nil && told {
		p.troubles.mu.Unlock()
		return
	}
	if p.troubles.told == nil {
		p.troubles.told = make(map[string]bool)
	}
	p.troubles.told[kind] = err != nil
	p.troubles.mu.Unlock()
	if err == nil {
		p.cfg.Log.Info("the provider's "+what+" is in order again", "event", kind+".recovered", "provider", p.cfg.Name)
		return
	}
	p.cfg.Log.Warn("the provider's "+what+" cannot be used; this is told once until it can", "event", kind+".failed",
		"provider", p.cfg.Name, "error", err, "do", p.advice(err))
}

// reportIDToken reports an ID Token that was refused for what is the provider's, or the configuration's, doing. That it
// belongs to another sign-in, or that somebody is signed in for too long, is no trouble.
func (p *Provider) reportIDToken(err error) {
	e, failed := errors.AsType[*Error](err)
	if err == nil || failed && slices.Contains([]string{"shape", "jwe", "json", "alg", "crit", "typ", "iss", "aud", "azp",
		"iat", "exp", "nbf", "signature", "kid"}, e.Check) {
		p.report(troubleIDToken, "ID Token", err)
	}
}

// reportUserinfo reports userinfo that does not answer, or with something else.
func (p *Provider) reportUserinfo(err error) {
	if !errors.Is(err, ErrUnsupported) && !errors.Is(err, ErrInvalidToken) && !errors.Is(err, context.Canceled) {
		p.report(troubleUserinfo, "userinfo", err)
	}
}

// reportToken reports a token endpoint that does not answer, or not as one. A refusal in the form of RFC 6749 §5.2 is
// an answer; one of the client is reported by clientRefused.
func (p *Provider) reportToken(err error) {
	r, refused := errors.AsType[*Refusal](err)
	if refused && r.Code != "" || errors.Is(err, ErrInvalidClient) || errors.Is(err, context.Canceled) {
		return
	}
	p.report(troubleToken, "token endpoint", err)
}

// advice says what to do about an error.
func (p *Provider) advice(err error) string {
	e, _ := errors.AsType[*Error](err)
	text := err.Error()
	_, certificate := errors.AsType[*tls.CertificateVerificationError](err)
	_, network := errors.AsType[net.Error](err)
	switch {
	case certificate:
		return "see that the provider's certificate is valid; if a private authority issued it, set ca_file"
	case network || errors.Is(err, io.EOF) || errors.Is(err, context.DeadlineExceeded):
		return "see that this machine reaches the provider (its name, firewalls, proxy, internal_url)"
	case strings.Contains(text, noRedirects):
		return "see that issuer, internal_url and the provider's metadata name the address that answers itself, with " +
			"https if it is https, and what is in front of the provider"
	case strings.Contains(text, "JSON"):
		return "open the address to see who answers there: it may be a page to sign in, or another server"
	case strings.Contains(text, "speaks for the issuer"):
		return "set issuer to exactly what the provider writes, if that is the provider that you mean"
	case e != nil && (e.Check == "iat" || e.Check == "exp" || e.Check == "nbf"):
		return fmt.Sprintf("set both clocks, of the provider and of this machine, by NTP: they may differ by %v", skew)
	case e != nil && e.Check == "alg":
		return "set id_token_signed_response_alg (for userinfo userinfo_signed_response_alg) to the algorithm that the " +
			"client is registered with, or change it at the provider"
	}
	return "see whether the provider is up, and run `curfew check`"
}

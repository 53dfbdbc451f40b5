package oidc_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"math/big"
	"strings"
	"testing"

	"example.com/curfew/oidc"
	"example.com/curfew/oidc/oidctest"
)

// BenchmarkVerifyLogoutToken sets the whole verification of a token beside the bare check of its signature by the
// standard library. Compare within one run.
func BenchmarkVerifyLogoutToken(b *testing.B) {
	for _, alg := range []string{"RS256", "PS256", "ES256", "EdDSA"} {
		h := build(b, func(c *oidctest.Client, cfg *oidc.Config) { c.SigningAlg, cfg.SigningAlg = alg, alg })
		raw := h.op.SignLogoutToken("app", "alice", "s")
		b.Run(alg+"/whole", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := h.verify(b, raw); err != nil {
					b.Fatal(err)
				}
			}
		})
		at := strings.LastIndexByte(raw, '.')
		sig, err := base64.RawURLEncoding.DecodeString(raw[at+1:])
		if err != nil {
			b.Fatal(err)
		}
		key, input := h.op.Key(alg).Private.Public(), []byte(raw[:at])
		b.Run(alg+"/bare", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !bare(alg, key, input, sig) {
					b.Fatal("does not verify")
				}
			}
		})
	}
}

func bare(alg string, key crypto.PublicKey, input, sig []byte) bool {
	sum := sha256.Sum256(input)
	switch alg {
	case "RS256":
		return rsa.VerifyPKCS1v15(key.(*rsa.PublicKey), crypto.SHA256, sum[:], sig) == nil
	case "PS256":
		return rsa.VerifyPSS(key.(*rsa.PublicKey), crypto.SHA256, sum[:], sig, nil) == nil
	case "ES256":
		return ecdsa.Verify(key.(*ecdsa.PublicKey), sum[:], new(big.Int).SetBytes(sig[:32]),
			new(big.Int).SetBytes(sig[32:]))
	default:
		return ed25519.Verify(key.(ed25519.PublicKey), input, sig)
	}
}

// BenchmarkRefuseGarbage is what a token costs that could not pass: compare with RS256/whole above.
func BenchmarkRefuseGarbage(b *testing.B) {
	h := build(b, func(c *oidctest.Client, cfg *oidc.Config) { c.SigningAlg, cfg.SigningAlg = "RS256", "RS256" })
	h.settle(b)
	stranger := oidctest.NewKey("RS256")
	for _, g := range []struct{ name, raw string }{
		{"good", h.op.SignLogoutToken("app", "alice", "s")},
		{"shape", strings.Repeat(".", 60000)},
		{"base64", strings.Repeat("!", 600) + "." + strings.Repeat("!", 600) + ".x"},
		{"alg", h.op.SignLogoutToken("app", "alice", "s", head("alg", "HS256"))},
		{"iss", h.op.SignLogoutToken("app", "alice", "s", claim("iss", "https://evil.example.com"))},
		{"aud", h.op.SignLogoutToken("app", "alice", "s", claim("aud", "other"))},
		{"exp", h.op.SignLogoutToken("app", "alice", "s", claim("exp", 1))},
		{"kid", h.op.SignLogoutToken("app", "alice", "s", head("kid", "absent"))},
		{"signature", h.op.SignLogoutToken("app", "alice", "s", func(j *oidctest.JWT) { j.Key = stranger })},
	} {
		b.Run(g.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := h.verify(b, g.raw); (err == nil) != (g.name == "good") {
					b.Fatal(err)
				}
			}
		})
	}
}

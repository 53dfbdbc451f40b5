package oidc

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	jose "github.com/go-jose/go-jose/v4"
)

// The keys and messages of RFC 7520 §5.4 and §5.5.
const (
	peregrin = `{"kty": "EC", "kid": "peregrin.took@tuckborough.example", "use": "enc", "crv": "P-384",
		"x": "YU4rRUzdmVqmRtWOs2OpDE_T5fsNIodcG8G5FWPrTPMyxpzsSOGaQLpe2FpxBmu2",
		"y": "A8-yxCHxkfBz3hKZfI1jUYMjUhsEveZ9THuwFjH2sCNdtksRJU7D5-SkgaFL1ETP",
		"d": "iTx2pk7wW-GqJkHcEkFQb2EFyYcO7RugmaW3mRrQVAOUiPommT0IdnYK2xDlZh-j"}`
	meriadoc = `{"kty": "EC", "kid": "meriadoc.brandybuck@buckland.example", "use": "enc", "crv": "P-256",
		"x": "Ze2loSV3wrroKUN_4zhwGhCqo3Xhu1td4QjeQ5wIVR0", "y": "HlLtdXARY_f55A3fnzQbPcm6hgr34Mp8p-nuzQCE0Zw",
		"d": "r_kHyZ-a06rmxM3yESK84r1otSg-aQcVStkRhA-iCM8"}`
	toPeregrin = "eyJhbGciOiJFQ0RILUVTK0ExMjhLVyIsImtpZCI6InBlcmVncmluLnRvb2tAdHVja2Jvcm91Z2guZXhhbXBsZSIsImVwayI6eyJr" +
		"dHkiOiJFQyIsImNydiI6IlAtMzg0IiwieCI6InVCbzRrSFB3Nmtiang1bDB4b3dyZF9vWXpCbWF6LUdLRlp1NHhBRkZrYllpV2d1dEVL" +
		"Nml1RURzUTZ3TmROZzMiLCJ5Ijoic3AzcDVTR2haVkMyZmFYdW1JLWU5SlUyTW84S3BvWXJGRHI1eVBOVnRXNFBnRXdaT3lRVEEtSmRh" +
		"WTh0YjdFMCJ9LCJlbmMiOiJBMTI4R0NNIn0.0DJjBXri_kBcC46IkU5_Jk9BqaQeHdv2.mH-G2zVqgztUtnW_.tkZuOO9h95OgHJmkkr" +
		"fLBisku8rGf6nzVxhRM3sVOhXgz5NJ76oID7lpnAi_cPWJRCjSpAaUZ5dOR3Spy7QuEkmKx8-3RCMhSYMzsXaEwDdXta9Mn5B7cCBoJK" +
		"B0IgEnj_qfo1hIi-uEkUpOZ8aLTZGHfpl05jMwbKkTe2yK3mjF6SBAsgicQDVCkcY9BLluzx1RmC3ORXaM0JaHPB93YcdSDGgpgBWMVr" +
		"NU1ErkjcMqMoT_wtCex3w03XdLkjXIuEr2hWgeP-nkUZTPU9EoGSPj6fAS-bSz87RCPrxZdj_iVyC6QWcqAu07WNhjzJEPc4jVntRJ6K" +
		"53NgPQ5p99l3Z408OUqj4ioYezbS6vTPlQ.WuGzxmcreYjpHGJoa17EBg"
	toMeriadoc = "eyJhbGciOiJFQ0RILUVTIiwia2lkIjoibWVyaWFkb2MuYnJhbmR5YnVja0BidWNrbGFuZC5leGFtcGxlIiwiZXBrIjp7Imt0eSI6" +
		"IkVDIiwiY3J2IjoiUC0yNTYiLCJ4IjoibVBVS1RfYkFXR0hJaGcwVHBqanFWc1AxclhXUXVfdndWT0hIdE5rZFlvQSIsInkiOiI4QlFB" +
		"c0ltR2VBUzQ2ZnlXdzVNaFlmR1RUMElqQnBGdzJTUzM0RHY0SXJzIn0sImVuYyI6IkExMjhDQkMtSFMyNTYifQ..yc9N8v5sYyv3iGQT" +
		"926IUg.BoDlwPnTypYq-ivjmQvAYJLb5Q6l-F3LIgQomlz87yW4OPKbWE1zSTEFjDfhU9IPIOSA9Bml4m7iDFwA-1ZXvHteLDtw4R1XR" +
		"GMEsDIqAYtskTTmzmzNa-_q4F_evAPUmwlO-ZG45Mnq4uhM1fm_D9rBtWolqZSF3xGNNkpOMQKF1Cl8i8wjzRli7-IXgyirlKQsbhhqR" +
		"zkv8IcY6aHl24j03C-AR2le1r7URUhArM79BY8soZU0lzwI-sD5PZ3l4NDCCei9XkoIAfsXJWmySPoeRb2Ni5UZL4mYpvKDiwmyzGd65" +
		"KqVw7MsFfI_K767G9C9Azp73gKZD0DyUn1mn0WW5LmyX_yJ-3AROq8p1WZBfG-ZyJ6195_JGG2m9Csg.WCCkNa-x4BeB9hIDIfFuhg"
)

func parseOne(t *testing.T, text string) PrivateKey {
	t.Helper()
	keys, err := ParsePrivateKeys([]byte(text))
	if err != nil || len(keys) != 1 {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	return keys[0]
}

// The messages of RFC 7520 are decrypted with exactly their own algorithms, and with whichever key they are for.
func TestTheEncryptedMessagesOfRFC7520(t *testing.T) {
	t.Parallel()
	const frodo = "You can trust us to stick with you through thick and thin–to the bitter end. And you can trust us " +
		"to keep any secret of yours–closer than you keep it yourself. But you cannot trust us to let you face trouble " +
		"alone, and go off without a word. We are your friends, Frodo."
	all := []PrivateKey{parseOne(t, peregrin), parseOne(t, meriadoc)}
	unnamed := slices.Clone(all)
	for i := range unnamed {
		unnamed[i].ID = fmt.Sprint(i)
	}
	for _, row := range []struct {
		name, alg, enc, raw string
		keys                []PrivateKey
		refused             string
	}{
		{"5.4", "ECDH-ES+A128KW", "A128GCM", toPeregrin, all[:1], ""},
		{"5.5", "ECDH-ES", "A128CBC-HS256", toMeriadoc, all[1:], ""},
		{"5.5, to the older of two keys", "ECDH-ES", "A128CBC-HS256", toMeriadoc, all, ""},
		{"5.5, to a key that is called otherwise here", "ECDH-ES", "A128CBC-HS256", toMeriadoc, unnamed, ""},
		{"5.5, to a key that is not ours", "ECDH-ES", "A128CBC-HS256", toMeriadoc, all[:1], "cannot be decrypted"},
		{"another alg", "ECDH-ES+A256KW", "A128GCM", toPeregrin, all[:1], "registered is ECDH-ES+A256KW"},
		{"another enc", "ECDH-ES+A128KW", "A256GCM", toPeregrin, all[:1], "is not the registered A256GCM"},
		{"CBC for GCM", "ECDH-ES", "A128GCM", toMeriadoc, all[1:], "is not the registered A128GCM"},
		{"a bit of it changed", "ECDH-ES", "A128CBC-HS256", strings.Replace(toMeriadoc, ".BoDlwP", ".BoDlwQ", 1), all[1:],
			"cannot be decrypted"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			e := &Encryption{Alg: row.alg, Enc: row.enc, Keys: row.keys}
			got, err := e.decrypt(row.raw, strings.Split(row.raw, "."))
			switch {
			case row.refused == "" && (err != nil || got != frodo):
				t.Errorf("got %q, %v", got, err)
			case row.refused != "" && (err == nil || !strings.Contains(err.Error(), row.refused)):
				t.Errorf("got %v; want that it %s", err, row.refused)
			}
		})
	}
}

func pemOf(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func TestPrivateKeysAreReadFromPEMAndJWK(t *testing.T) {
	t.Parallel()
	r, err1 := rsa.GenerateKey(rand.Reader, 2048)
	small, err2 := rsa.GenerateKey(rand.Reader, 1024)
	e, err3 := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	weak, err4 := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	_, d, err5 := ed25519.GenerateKey(rand.Reader)
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		t.Fatal(err)
	}
	pkcs8 := func(k any) string {
		der, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			t.Fatal(err)
		}
		return pemOf("PRIVATE KEY", der)
	}
	sec1, err := x509.MarshalECPrivateKey(e)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(r.Public())
	if err != nil {
		t.Fatal(err)
	}
	jwk := func(k any) string {
		b, err := json.Marshal(jose.JSONWebKey{Key: k, KeyID: "ours"})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	other, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var mixed, half map[string]any
	for text, to := range map[string]*map[string]any{jwk(e): &mixed, jwk(other): &half} {
		if err := json.Unmarshal([]byte(text), to); err != nil {
			t.Fatal(err)
		}
	}
	mixed["d"] = half["d"]
	notTogether, err := json.Marshal(mixed)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name, text string
		keys       []any
		refused    string
	}{
		{"PKCS#1", pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(r)), []any{r}, ""},
		{"SEC 1 after its parameters", pemOf("EC PARAMETERS", []byte{6, 5}) + pemOf("EC PRIVATE KEY", sec1), []any{e}, ""},
		{"several", pkcs8(r) + "# the old one\n" + pkcs8(e) + pkcs8(d), []any{r, e, d}, ""},
		{"a JWK", " \n" + jwk(e), []any{e}, ""},
		{"a JWK of Ed25519", jwk(d), []any{d}, ""},
		{"a JWK of RSA", jwk(r), []any{r}, ""},
		{"a JWK Set", `{"keys": [` + jwk(r) + `, ` + meriadoc + `]}`, []any{r, parseOne(t, meriadoc).Key}, ""},
		{"nothing", "", nil, "holds no private key"},
		{"a public key", pemOf("PUBLIC KEY", public), nil, "no private key"},
		{"a public JWK", jwk(r.Public()), nil, "it is a public key"},
		{"a secret", `{"kty": "oct", "k": "AAAA"}`, nil, "shared secret"},
		{"a passphrase", pemOf("ENCRYPTED PRIVATE KEY", []byte{1}), nil, "passphrase"},
		{"an old passphrase", "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: x,y\n\nAAAA\n" +
			"-----END RSA PRIVATE KEY-----\n", nil, "passphrase"},
		{"rubbish in PEM", pemOf("PRIVATE KEY", []byte("secret rubbish")), nil, "cannot be read"},
		{"rubbish in JSON", `{"kty": "RSA", "d": "secret rubbish"}`, nil, "no private JWK"},
		{"half of JSON", `{"kty": "secret`, nil, "not one JSON object"},
		{"a name twice", `{"kty": "EC", "kty": "RSA"}`, nil, "not one JSON object"},
		{"no key in a set", `{"keys": []}`, nil, "`keys`"},
		{"a small key", pkcs8(small), nil, "1024 bits, less than 2048"},
		{"a weak curve", pkcs8(weak), nil, "P-224"},
		{"two halves", string(notTogether), nil, "do not go together"},
		{"a strange use", strings.Replace(meriadoc, `"enc"`, `"tea"`, 1), nil, `"tea"`},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			keys, err := ParsePrivateKeys([]byte(row.text))
			if row.refused != "" {
				if err == nil || !strings.Contains(err.Error(), row.refused) || strings.Contains(err.Error(), "secret r") {
					t.Errorf("got %v; want %q, and nothing of the file", err, row.refused)
				}
				return
			}
			if err != nil || len(keys) != len(row.keys) {
				t.Fatalf("got %d keys, %v", len(keys), err)
			}
			for i, k := range keys {
				if !k.Key.(interface{ Equal(crypto.PrivateKey) bool }).Equal(row.keys[i]) || k.ID == "" {
					t.Errorf("key %d is another one, or has no ID", i+1)
				}
			}
			if s := fmt.Sprintf("%v %+v %#v", keys[0], keys[0], keys[0]); strings.Trim(s, " ") !=
				"[private key] [private key] [private key]" {
				t.Errorf("a key prints as %s", s)
			}
		})
	}
}

// RFC 8037, appendices A.1 and A.3.
func TestAKeyWithoutANameIsCalledByItsThumbprint(t *testing.T) {
	t.Parallel()
	k := parseOne(t, `{"kty": "OKP", "crv": "Ed25519", "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
		"x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`)
	if k.ID != "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k" {
		t.Errorf("it is called %s", k.ID)
	}
}

// RFC 9449 §7.1: the access token of the example, and the hash of it in the proof.
func TestADPoPProofIsThatOfRFC9449(t *testing.T) {
	t.Parallel()
	p, err := New(Config{Issuer: "https://id.example.com", ClientID: "app", DPoP: true})
	if err != nil {
		t.Fatal(err)
	}
	key, err := newDPoPKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := p.proof(key, "GET", "https://resource.example.org/protectedresource?a=b#c",
		"Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU")
	if err != nil {
		t.Fatal(err)
	}
	jws, err := jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	header := jws.Signatures[0].Protected
	payload, err := jws.Verify(header.JSONWebKey)
	if err != nil || header.JSONWebKey.KeyID != "" || !header.JSONWebKey.IsPublic() ||
		header.ExtraHeaders[jose.HeaderType] != "dpop+jwt" {
		t.Fatalf("the header is %+v, %v", header, err)
	}
	var c map[string]any
	if err := json.Unmarshal(payload, &c); err != nil {
		t.Fatal(err)
	}
	if c["ath"] != "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo" || c["htm"] != "GET" ||
		c["htu"] != "https://resource.example.org/protectedresource" || c["jti"] == "" || c["iat"] == nil || len(c) != 5 {
		t.Errorf("the proof is %s", payload)
	}
	again, err := newDPoPKey(key.bytes())
	if err != nil || !again.private.Equal(key.private) || len(key.bytes()) != 32 {
		t.Errorf("a key that was kept is not the same: %v", err)
	}
	for _, wrong := range [][]byte{{}, {1}, make([]byte, 32), bytes.Repeat([]byte{255}, 32)} {
		if _, err := newDPoPKey(wrong); err == nil {
			t.Errorf("% x is taken for a key", wrong)
		}
	}
}

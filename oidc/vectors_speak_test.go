package oidc

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"

	jose "github.com/go-jose/go-jose/v4"
)

// The examples of RFC 9126 (with the key pair of its §3), RFC 9101 §4 and RFC 9449 (figures 2 and 13).
const (
	parAssertion = "eyJraWQiOiJrMmJkYyIsImFsZyI6IlJTMjU2In0.eyJpc3MiOiJzNkJoZFJrcXQzIiwic3ViIjoiczZCaGRSa3F0MyIsImF1" +
		"ZCI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tIiwiZXhwIjoxNjI1ODY5Njc3fQ.te4IdnP_DK4hWrhTWA6fyhy3fxlAQZAhfA4lm" +
		"zRdpoP5uZb-E90R5YxzN1YDA8mnVdpgj_Bx1lG5r6sef5TlckApA3hahhC804dcqlE4naEmLISmN1pds2WxTMOUzZY8aKKSDzNTDqhyT" +
		"gE-KdTb3RafRj7tdZb09zWs7c_moOvfVcQIoy5zz1BvLQKW1Y8JsYvdpu2AvpxRPbcP8WyeW9B6PL6_fy3pXYKG3e-qUcvPa9kan-mo9" +
		"EoSgt-YTDQjK1nZMdXIqTluK9caVJERWW0fD1Y11_tlOcJn-ya7v7d8YmFyJpkhZfm8x1FoeH0djEicXTixEkdRuzsgUCm6GQ"
	parRequestObject = "eyJraWQiOiJrMmJkYyIsImFsZyI6IlJTMjU2In0.eyJpc3MiOiJzNkJoZFJrcXQzIiwiYXVkIjoiaHR0cHM6Ly9zZXJ2ZXIu" +
		"ZXhhbXBsZS5jb20iLCJyZXNwb25zZV90eXBlIjoiY29kZSIsImNsaWVudF9pZCI6InM2QmhkUmtxdDMiLCJyZWRpcmVjdF91cmkiOiJo" +
		"dHRwczovL2NsaWVudC5leGFtcGxlLm9yZy9jYiIsInNjb3BlIjoiYWlzIiwic3RhdGUiOiJhZjBpZmpzbGRraiIsImNvZGVfY2hhbGxl" +
		"bmdlIjoiSzItbHRjODNhY2M0aDBjOXc2RVNDX3JFTVRKM2J3dy11Q0hhb2VLMXQ4VSIsImNvZGVfY2hhbGxlbmdlX21ldGhvZCI6IlMy" +
		"NTYifQ.O49ffUxRPdNkN3TRYDvbEYVr1CeAL64uW4FenV3n9WlaFIRHeFblzv-wlEtMm8-tusGxeE9z3ek6FxkhvvLEqEpjthXnyXqqy" +
		"Jfq3k9GSf5ay74ml_0D6lHE1hy-kVWg7SgoPQ-GB1xQ9NRhF3EKS7UZIrUHbFUCF0MsRLbmtIvaLYbQH_Ef3UkDLOGiU7exhVFTPeyQU" +
		"TM9FF-u3K-zX-FO05_brYxNGLhVkO1G8MjqQnn2HpAzlBd5179WTzTYhKmhTiwzH-qlBBI_9GLJmE3KOipko9TfSpa26H4JOlMyfZFl0" +
		"PCJwkByS0xZFJ2sTo3Gkk488RQohhgt1I0onw"
	parN = "y9Lqv4fCp6Ei-u2-ZCKq83YvbFEk6JMs_pSj76eMkddWRuWX2aBKGHAtKlE5P7_vn__PCKZWePt3vGkB6ePgzAFu08NmKemw" +
		"E5bQI0e6kIChtt_6KzT5OaaXDFI6qCLJmk51Cc4VYFaxgqevMncYrzaW_50mZ1yGSFIQzLYP8bijAHGVjdEFgZaZEN9lsn_GdWLaJpHr" +
		"B3ROlS50E45wxrlg9xMncVb8qDPuXZarvghLL0HzOuYRadBJVoWZowDNTpKpk2RklZ7QaBO7XDv3uR7s_sf2g-bAjSYxYUGsqkNA9b3x" +
		"VW53am_UZZ3tZbFTIh557JICWKHlWj5uzeJXaw"
	parD = "LNwG_pCKrwowALpCpRdcOKlSVqylSurZhE6CpkRiE9cpDgGKIkO9CxPlXOLzjqxXuQc8MdMqRQZTnAwgd7HH0B6gncrruV3N" +
		"ewI-XQV0ckldTjqNfOTz1VRs-jE-57KAXI3YBIhu-_0YpIDzdk_wBuAk661Svn0GsPQe7m9DoxdzenQu9O_soewUhlPzRrTH0EeIqYI7" +
		"15rwI3TYaSzoWBmEPD2fICyj18FF0MPy_SQzk3noVUUIzfzLnnJiWy_p63QBCMqjRoSHHdMnI4z9iVpIwJWQ3jO5n_2lC2-cSgwjmKsF" +
		"zDBbQNJc7qMG1N6EssJUwgGJxz1eAUFf0w4YAQ"
	parP = "5sd9Er3I2FFT9R-gy84_oakEyCmgw036B_nfYEEOCwpSvi2z7UcIVK3bSEL5WCW6BNgB3HDWhq8aYPirwQnqm0K9mX1E-4xM" +
		"10WWZ-rP3XjYpQeS0Snru5LFVWsAzi-FX7BOqBibSAXLdEGXcXa44l08iec_bPD3xduq5V_1YoE"
	parQ = "4hlMYAGa0dvogdK1jnxQ7J_Lqpqi99e-AeoFvoYpMPhthChTzwFZO9lQmUoBpMqVQTws_s7vWGmt7ZAB3ywkurf0pV7BD0fw" +
		"eJiUzrWk4KJjxtmP_auuxrjvm3s2FUGn6f0wRY9Z8Hj9A7C72DnYCjuZiJQMYCWDsZ8-d-L1a-s"
	parDP = "Zc877jirkkLOtyTs2vxyNe9KnMNAmOidlUc2tE_-0gAL4Lpo1hSwKCtKweZJ-gkqt1hT-dwNx_0Xtg_-NXsadMRMwJnzBMYw" +
		"YAfjApUkfqABc0yUCJJl3KozRCugf1WXkU9GZAH2_x8PUopdNUEa70ISowPRh04HANKX4fkjWAE"
	parDQ = "Nz2PF3XM6bEc4XsluKZO70ErdYdKgdtIJReUR7Rno_tOZpejwlPGBYVW19zpAeYtCT82jxroB2XqhLxGeMxEPQpsz2qTKLSe" +
		"4BgHY2ml2uxSDGdjcsrbbNoKUKaN1CuyZszhWl1n0AT_bENl4bJgQj_Fh0UEsQj5YBBUJt5gr_k"
	parQI = "J-mG0swR4FTy3atrcQ7dd0hhYn1E9QndN--sDG4EQO0RnFj6wIefCvwIc47hCtVeFnCTPYJNc_JyV-mU-9vlzS5GSNuyR5qd" +
		"psMZXUMpEvQcwKt23ffPZYGaqfKyEesmf_Wi8fFcE68H9REQjnniKrXm7w2-IuG_IrVJA9Ox-uU"
	jarRequestObject = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImsyYmRjIn0.ewogICAgImlzcyI6ICJzNkJoZFJrcXQzIiwKICAgICJhdWQiOiAiaHR0" +
		"cHM6Ly9zZXJ2ZXIuZXhhbXBsZS5jb20iLAogICAgInJlc3BvbnNlX3R5cGUiOiAiY29kZSBpZF90b2tlbiIsCiAgICAiY2xpZW50X2lk" +
		"IjogInM2QmhkUmtxdDMiLAogICAgInJlZGlyZWN0X3VyaSI6ICJodHRwczovL2NsaWVudC5leGFtcGxlLm9yZy9jYiIsCiAgICAic2Nv" +
		"cGUiOiAib3BlbmlkIiwKICAgICJzdGF0ZSI6ICJhZjBpZmpzbGRraiIsCiAgICAibm9uY2UiOiAibi0wUzZfV3pBMk1qIiwKICAgICJt" +
		"YXhfYWdlIjogODY0MDAKfQ.Nsxa_18VUElVaPjqW_ToI1yrEJ67BgKb5xsuZRVqzGkfKrOIX7BCx0biSxYGmjK9KJPctH1OC0iQJwXu5" +
		"YVY-vnW0_PLJb1C2HG-ztVzcnKZC2gE4i0vgQcpkUOCpW3SEYXnyWnKzuKzqSb1wAZALo5f89B_p6QA6j6JwBSRvdVsDPdulW8lKxGTb" +
		"H82czCaQ50rLAg3EYLYaCb4ik4I1zGXE4fvim9FIMs8OCMmzwIB5S-ujFfzwFjoyuPEV4hJnoVUmXR_W9typPf846lGwA8h9G9oNTIuX" +
		"8Ft2jfpnZdFmLg3_wr3Wa5q3a-lfbgF3S9H_8nN3j1i7tLR_5Nz-g"
	jarN = "x5RbkAZkmpRxia65qRQ1wwSMSxQUnS7gcpVTV_cdHmfmG2ltd2yabEO9XadD8pJNZubINPpmgHh3J1aD9WRwS05ucmFq3CfF" +
		"sluLt13_7oX5yDRSKX7poXmT_5ko8k4NJZPMAO8fPToDTH7kHYbONSE2FYa5GZ60CUsFhSonI-dcMDJ0Ary9lxIw5k2z4TAdARVWcS7s" +
		"D07VhlMMshrwsPHBQgTatlkxyIHXbYdtak8fqvNAwr7OlVEvM_Ipf5OfmdB8Sd-wjzaBsyP4VhJKoi_qdgSzpC694XZeYPq45Sw-q51i" +
		"FUlcOlTCI7z6jltUtnR6ySn6XDGFnzH5Fe5ypw"
	dpopFigure2 = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklD" +
		"UkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIs" +
		"ImNydiI6IlAtMjU2In19.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV" +
		"4YW1wbGUuY29tL3Rva2VuIiwiaWF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiO" +
		"SsX0x7NVY-FNyJK70nfbV37xRZT3Lg"
	dpopFigure13 = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklD" +
		"UkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIs" +
		"ImNydiI6IlAtMjU2In19.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5" +
		"leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHh" +
		"XWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfx" +
		"SYoMxhAJpLjA"
)

// example takes apart a JWT that an RFC shows.
func example(t *testing.T, raw string) (header, claims map[string]any, input string, signature []byte) {
	t.Helper()
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		t.Fatalf("%d parts", len(parts))
	}
	for i, to := range []*map[string]any{&header, &claims} {
		text, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err == nil {
			err = json.Unmarshal(text, to)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		t.Fatal(err)
	}
	return header, claims, parts[0] + "." + parts[1], signature
}

func publicOf(t *testing.T, modulus string) crypto.PublicKey {
	t.Helper()
	var k jose.JSONWebKey
	err := json.Unmarshal([]byte(`{"kty": "RSA", "kid": "k2bdc", "e": "AQAB", "n": "`+modulus+`"}`), &k)
	if err != nil {
		t.Fatal(err)
	}
	return k.Key
}

// RFC 9126 §2.1 and §3: the private key is read, made both signatures, and makes the same again.
func TestTheKeyOfRFC9126MadeItsExamples(t *testing.T) {
	t.Parallel()
	k := parseOne(t, `{"kty": "RSA", "kid": "k2bdc", "e": "AQAB", "n": "`+parN+`", "d": "`+parD+`", "p": "`+parP+
		`", "q": "`+parQ+`", "dp": "`+parDP+`", "dq": "`+parDQ+`", "qi": "`+parQI+`"}`)
	if k.ID != "k2bdc" {
		t.Errorf("it is called %q", k.ID)
	}
	alg, err := findAlgorithm("RS256")
	if err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string]string{"the assertion": parAssertion, "the request object": parRequestObject} {
		_, claims, input, signature := example(t, raw)
		if !alg.verify(publicOf(t, parN), input, signature) {
			t.Errorf("%s is not signed by the key", name)
		}
		sum := sha256.Sum256([]byte(input))
		again, err := rsa.SignPKCS1v15(rand.Reader, k.Key.(*rsa.PrivateKey), crypto.SHA256, sum[:])
		if err != nil || !bytes.Equal(again, signature) {
			t.Errorf("%s gets another signature here: %v", name, err)
		}
		if claims["iss"] != "s6BhdRkqt3" || claims["aud"] != "https://server.example.com" {
			t.Errorf("%s has the claims %v", name, claims)
		}
	}
}

// RFC 9126 §2.1, RFC 7523 §2.2 and §3: what our client assertion has of that of the example, and what besides.
func TestAClientAssertionHasTheClaimsOfRFC9126(t *testing.T) {
	t.Parallel()
	p, k := s6BhdRkqt3(t, func(c *Config) { c.AuthMethod = AuthPrivateJWT })
	form := url.Values{}
	if err := p.authenticate(t.Context(), form); err != nil {
		t.Fatal(err)
	}
	const kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" // RFC 7523 §2.2
	if form.Get("client_assertion_type") != kind || form.Get("client_id") != "s6BhdRkqt3" || len(form) != 3 {
		t.Errorf("the form is %v", form)
	}
	header, claims, input, signature := example(t, form.Get("client_assertion"))
	theirHeader, theirs, _, _ := example(t, parAssertion)
	compare(t, "the header", header, theirHeader, "typ")
	compare(t, "the assertion", claims, theirs, "exp", "iat", "jti")
	if alg, err := findAlgorithm("RS256"); err != nil || !alg.verify(k.(*rsa.PrivateKey).Public(), input, signature) {
		t.Errorf("it is not signed by the key: %v", err)
	}
}

// RFC 7523 §4: the header of its example.
func TestAClientAssertionHasTheHeaderOfRFC7523(t *testing.T) {
	t.Parallel()
	p, _ := s6BhdRkqt3(t, func(c *Config) {
		c.AuthMethod, c.Keys = AuthPrivateJWT, []PrivateKey{{ID: "16", Key: ecKeyFor(t)}}
	})
	raw, err := p.clientAssertion(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	header, _, _, _ := example(t, raw)
	compare(t, "the header", header, map[string]any{"alg": "ES256", "kid": "16"}, "typ")
}

// RFC 9101 §4 and RFC 9126 §3: the example is signed by its key, and ours of the same request has the same claims.
func TestARequestObjectHasTheClaimsOfItsRFC(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, raw, modulus string }{
		{"RFC 9101", jarRequestObject, jarN}, {"RFC 9126", parRequestObject, parN},
	} {
		theirHeader, theirs, input, signature := example(t, row.raw)
		alg, err := findAlgorithm("RS256")
		if err != nil || !alg.verify(publicOf(t, row.modulus), input, signature) {
			t.Errorf("%s: the example is not signed by its key: %v", row.name, err)
		}
		q := url.Values{}
		for name, v := range theirs {
			switch v := v.(type) {
			case float64:
				q.Set(name, "86400") // max_age
			case string:
				if name != "iss" && name != "aud" {
					q.Set(name, v)
				}
			}
		}
		p, _ := s6BhdRkqt3(t, func(c *Config) { c.RequestObjectSigningAlg = "RS256" })
		outside, err := p.requestObject(q, true)
		if err != nil || outside.Get("client_id") != "s6BhdRkqt3" || len(outside) != 2 {
			t.Fatalf("%s: outside are %v, %v", row.name, outside, err)
		}
		header, claims, _, _ := example(t, outside.Get("request"))
		compare(t, row.name+": the header", header, theirHeader, "typ")
		compare(t, row.name, claims, theirs, "exp", "iat", "jti", "nbf")
		if header["typ"] != "oauth-authz-req+jwt" { // RFC 9101 §4
			t.Errorf("%s: the typ is %v", row.name, header["typ"])
		}
	}
}

func ecKeyFor(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// s6BhdRkqt3 is the client of the examples, with a new key of the same name.
func s6BhdRkqt3(t *testing.T, change func(*Config)) (*Provider, crypto.PrivateKey) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	c := Config{Issuer: "https://server.example.com", ClientID: "s6BhdRkqt3", AuthMethod: AuthNone,
		Keys: []PrivateKey{{ID: "k2bdc", Key: key}}}
	change(&c)
	p, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return p, key
}

// compare wants all members of an example in ours, and others only if they are named; those of the example that are
// named may have another value.
func compare(t *testing.T, what string, ours, theirs map[string]any, own ...string) {
	t.Helper()
	for name, v := range theirs {
		if got, ok := ours[name]; !ok || !slices.Contains(own, name) && !reflect.DeepEqual(got, v) {
			t.Errorf("%s: %s is %v, and %v in the example", what, name, got, v)
		}
	}
	for name := range ours {
		if _, ok := theirs[name]; !ok && !slices.Contains(own, name) {
			t.Errorf("%s: it has %s, which the example has not", what, name)
		}
	}
}

// RFC 8705, appendix A: the certificate, its thumbprint, and the JWK that a provider is given of it (§2.2.2).
func TestTheCertificateOfRFC8705(t *testing.T) {
	t.Parallel()
	const (
		text = `-----BEGIN CERTIFICATE-----
MIIBBjCBrAIBAjAKBggqhkjOPQQDAjAPMQ0wCwYDVQQDDARtdGxzMB4XDTE4MTAx
ODEyMzcwOVoXDTIyMDUwMjEyMzcwOVowDzENMAsGA1UEAwwEbXRsczBZMBMGByqG
SM49AgEGCCqGSM49AwEHA0IABNcnyxwqV6hY8QnhxxzFQ03C7HKW9OylMbnQZjjJ
/Au08/coZwxS7LfA4vOLS9WuneIXhbGGWvsDSb0tH6IxLm8wCgYIKoZIzj0EAwID
SQAwRgIhAP0RC1E+vwJD/D1AGHGzuri+hlV/PpQEKTWUVeORWz83AiEA5x2eXZOV
bUlJSGQgjwD5vaUaKlLR50Q2DmFfQj1L+SY=
-----END CERTIFICATE-----
`
		thumbprint = "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0"
	)
	block, _ := pem.Decode([]byte(text))
	p, _ := s6BhdRkqt3(t, func(c *Config) {
		c.AuthMethod, c.Keys = AuthSelfSignedTLS, nil
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &tls.Certificate{Certificate: [][]byte{block.Bytes}}, nil
		}
	})
	set, err := json.Marshal(p.ClientKeys())
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Keys []map[string]any }
	if err := json.Unmarshal(set, &got); err != nil || len(got.Keys) != 1 {
		t.Fatalf("published is %s, %v", set, err)
	}
	k := got.Keys[0]
	body := strings.Split(strings.TrimSpace(text), "\n")
	compare(t, "the key", k, map[string]any{"kty": "EC", "crv": "P-256",
		"x": "1yfLHCpXqFjxCeHHHMVDTcLscpb07KUxudBmOMn8C7Q", "y": "8_coZwxS7LfA4vOLS9WuneIXhbGGWvsDSb0tH6IxLm8",
		"x5c": []any{strings.Join(body[1:len(body)-1], "")}}, "kid", "use", "alg", "x5t", "x5t#S256")
	chain, _ := k["x5c"].([]any)
	if len(chain) != 1 {
		t.Fatalf("the chain is %v", chain)
	}
	der, err := base64.StdEncoding.DecodeString(chain[0].(string))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(cert.Raw); base64.RawURLEncoding.EncodeToString(sum[:]) != thumbprint {
		t.Errorf("the x5t#S256 of what is published is not %s", thumbprint)
	}
}

// RFC 9449 §4.2, §6.1, §7.1: ours has what the proofs of the examples have, whose key has the thumbprint of figure 9.
func TestADPoPProofHasWhatThoseOfRFC9449Have(t *testing.T) {
	t.Parallel()
	p, _ := s6BhdRkqt3(t, func(c *Config) { c.DPoP, c.Keys = true, nil })
	key, err := newDPoPKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ name, raw, method, where, token string }{
		{"figure 2", dpopFigure2, "POST", "https://server.example.com/token", ""},
		{"figure 13", dpopFigure13, "GET", "https://resource.example.org/protectedresource",
			"Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"},
	} {
		jws, err := jose.ParseSignedCompact(row.raw, []jose.SignatureAlgorithm{dpopAlg})
		if err != nil {
			t.Fatal(err)
		}
		jwk := jws.Signatures[0].Protected.JSONWebKey
		if _, err := jws.Verify(jwk); err != nil {
			t.Errorf("%s is not signed by its key: %v", row.name, err)
		}
		if sum, err := jwk.Thumbprint(thumbprintHash); err != nil ||
			encodePart(sum) != "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" { // figure 9
			t.Errorf("%s: the thumbprint of its key is %s, %v", row.name, encodePart(sum), err)
		}
		ours, err := p.proof(key, row.method, row.where, row.token)
		if err != nil {
			t.Fatal(err)
		}
		header, claims, _, _ := example(t, ours)
		theirHeader, theirs, _, _ := example(t, row.raw)
		compare(t, row.name, claims, theirs, "jti", "iat")
		compare(t, row.name+": the header", header, theirHeader, "jwk")
		names := func(m map[string]any) []string {
			return slices.Sorted(maps.Keys(m["jwk"].(map[string]any)))
		}
		if !slices.Equal(names(header), names(theirHeader)) {
			t.Errorf("%s: the key has %v, and %v in the example", row.name, names(header), names(theirHeader))
		}
	}
}

package oidc_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"example.com/curfew/oidc"
)

func unsigned(header, payload string) string {
	e := base64.RawURLEncoding.EncodeToString
	return e([]byte(header)) + "." + e([]byte(payload)) + "." + e([]byte("signature"))
}

func TestARefusedTokenIsDescribedWithoutWhatIsPersonal(t *testing.T) {
	t.Parallel()
	said := oidc.Describe(unsigned(`{"alg":"RS256","kid":"k1","typ":"logout+jwt"}`, `{"iss":"https://id.example",
		"aud":["app",7],"iat":1700000000,"exp":1e400,"jti":"j","sub":"alice","sid":"s","nonce":"n","email":"a@example.com",
		"events":{"http://schemas.openid.net/event/backchannel-logout":{"secret":1}},"nbf":null}`))
	text, err := json.Marshal(said)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"aud":["app","(not a string)"],"email":"(not shown)",` +
		`"events":["http://schemas.openid.net/event/backchannel-logout"],"exp":1e400,"header alg":"RS256",` +
		`"header kid":"k1","header typ":"logout+jwt","iat":1700000000,"iss":"https://id.example","jti":"j","nbf":null,` +
		`"nonce":"(not shown)","sid":"s","sub":"alice"}`
	if string(text) != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
}

func TestADescriptionIsBounded(t *testing.T) {
	t.Parallel()
	var claims []string
	for i := range 200 {
		claims = append(claims, fmt.Sprintf(`"c%03d%s":"x"`, i, strings.Repeat("y", 40)))
	}
	list := strings.Repeat(`"a",`, 300) + `"a"`
	for name, raw := range map[string]string{
		"many claims":   unsigned(`{"alg":"RS256"}`, `{`+strings.Join(claims, ",")+`,"sub":"alice"}`),
		"long values":   unsigned(`{"alg":"RS256"}`, `{"sub":"`+strings.Repeat("é", 3000)+`"}`),
		"long lists":    unsigned(`{"alg":"RS256"}`, `{"aud":[`+list+`],"sub":"x"}`),
		"a long number": unsigned(`{"alg":"RS256"}`, `{"iat":1`+strings.Repeat("0", 3000)+`}`),
	} {
		said := oidc.Describe(raw)
		text, err := json.Marshal(said)
		if err != nil || said == nil || len(text) > 12_000 {
			t.Errorf("%s: %d bytes, %v", name, len(text), err)
		}
		if name == "many claims" && said["sub"] != "alice" {
			t.Errorf("%s: what is checked is not shown: %v", name, said)
		}
	}
	for _, raw := range []string{"", "x", "a.b.c", "a.b.c.d.e", unsigned(`{}`, `[]`), unsigned(`{"alg":1}`, `{}`)} {
		if said := oidc.Describe(raw); said != nil {
			t.Errorf("%q: %v", raw, said)
		}
	}
}

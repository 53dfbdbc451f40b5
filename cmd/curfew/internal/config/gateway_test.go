package config

import (
	"strings"
	"testing"
)

func TestTheSettingsForComposeAreUnderstood(t *testing.T) {
	t.Parallel()
	c, err := Load(map[string]string{"config": "../../../../deploy/compose/curfew.yaml"},
		[]string{"CURFEW_CLIENT_SECRET=app-secret-of-the-demo"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Providers[0].ClientSecret == "" || c.KeyFile == "" || c.Upstream == nil {
		t.Errorf("loaded %+v", c)
	}
}

func TestHowHeadersAreWrittenIsChecked(t *testing.T) {
	t.Parallel()
	const head = "url: http://127.0.0.1:4180\nproviders: [{issuer: https://id.example.com, client_id: app}]\n"
	for _, row := range []struct{ text, want string }{
		{"list_separator: ', '", `curfew.yaml:3: list_separator: ", " is not a separator`},
		{"list_separator: a", `"a" is not a separator`},
		{"header_encoding: latin-1", `header_encoding: "latin-1" is not one of: utf-8, percent, rfc8187`},
		{"oauth2_proxy_paths: perhaps", `"perhaps" is neither true nor false`},
		{"list_separator: ;\nheader_encoding: percent\noauth2_proxy_paths: true", ""},
	} {
		c, err := Load(map[string]string{"config": writeFile(t, head+row.text+"\n")}, nil)
		if got := errorText(err); !strings.Contains(got, row.want) || (row.want == "") != (err == nil) {
			t.Errorf("%s: %q, want %q", row.text, got, row.want)
		}
		if err == nil && (c.separator != ";" || c.encoding != "percent" || !c.OAuth2ProxyPaths) {
			t.Errorf("loaded %+v", c.Gateway)
		}
	}
}

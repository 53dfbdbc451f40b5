package config

import (
	"fmt"
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

// A name that is given by a YAML alias is what the alias refers to, wherever names are the file's own.
func TestANameMayBeAnAlias(t *testing.T) {
	t.Parallel()
	c, err := Load(map[string]string{"config": writeFile(t, `url: http://127.0.0.1:4180
cookie_name: &claim department
upstream: http://127.0.0.1:9
providers:
  - issuer: https://id.example.com
    client_id: app
    require: {*claim : [sales]}
    authorization_params: {*claim : sales}
policy:
  - path: /admin
    claims: {*claim : [sales]}
`)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	p := c.Providers[0]
	if len(p.Require["department"]) != 1 || p.AuthParams["department"] != "sales" ||
		!strings.Contains(fmt.Sprintf("%+v", c.Policy), "department") {
		t.Errorf("require %v, authorization_params %v, policy %+v", p.Require, p.AuthParams, c.Policy)
	}
}

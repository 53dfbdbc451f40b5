package config

import (
	"strings"
	"testing"
)

func TestAppsThatCannotBeToldAreFaultsOfTheConfiguration(t *testing.T) {
	t.Parallel()
	const head = "url: http://127.0.0.1:4180\nproviders: [{issuer: https://id.example.com, client_id: app}]\n"
	for _, row := range []struct{ text, want string }{
		{"apps: []", "apps: want a list with one entry for each app"},
		{"apps: [{client_id: wiki}]", "curfew.yaml:3: apps[0].backchannel_logout_uri: is missing"},
		{"apps: [{backchannel_logout_uri: https://a.example}]", "apps[0].client_id: is missing"},
		{"apps: [{client_id: wiki, backchannel_logout_uri: http://10.0.0.7/}]",
			`app "wiki": backchannel_logout_uri is http`},
		{"apps: [{client_id: wiki, backchannel_logout_uri: 'https://a.example/#x'}]",
			`app "wiki": backchannel_logout_uri must have no fragment`},
		{"apps: [{client_id: wiki, backchannel_logout_uri: 'https://u:p@a.example/'}]",
			`app "wiki": backchannel_logout_uri must have no user`},
		{"apps: [{client_id: wiki, backchannel_logout_uri: /logout}]",
			`app "wiki": backchannel_logout_uri must be absolute`},
		{"apps: [{client_id: wiki, backchannel_logout_uri: 'gopher://a.example/'}]",
			`app "wiki": backchannel_logout_uri has the unknown scheme "gopher"`},
		{"apps: [{client_id: wiki, backchannel_logout_uri: https://a.example, signing_alg: HS256}]",
			`apps[0].signing_alg: "HS256" is not one of`},
		{"apps: [{client_id: wiki, backchannel_logout_uri: https://a.example, secret: x}]",
			"apps[0].secret: there is no such setting"},
		{"apps: [{client_id: wiki, backchannel_logout_uri: https://a.example}, {client_id: wiki, " +
			"backchannel_logout_uri: " +
			"https://b.example}]", `"wiki" is another app`},
		{"app: mail\napps: [{client_id: wiki, backchannel_logout_uri: https://a.example}]",
			`app: there is no app "mail"`},
		{"key_rotation: 1h", "key_rotation: 1h is too short"},
		{"key_rotation: never", ""},
	} {
		_, err := Load(map[string]string{"config": writeFile(t, head+row.text+"\n")}, nil)
		if got := strings.TrimSpace(errorText(err)); !strings.Contains(got, row.want) ||
			(row.want == "") != (err == nil) {
			t.Errorf("%s: %q, want %q", row.text, got, row.want)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

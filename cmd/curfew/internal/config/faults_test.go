package config

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	withURL      = "url: https://app.example.com\n"
	withProvider = "providers: [{issuer: https://id.example.com, client_id: app}]\n"
	complete     = withURL + withProvider
)

// faultsOf returns every fault of a file, without its folder.
func faultsOf(t *testing.T, text string) []string {
	t.Helper()
	file := writeFile(t, text)
	_, err := Load(map[string]string{"config": file}, nil)
	if err == nil {
		return nil
	}
	return strings.Split(strings.ReplaceAll(err.Error(), filepath.Dir(file)+"/", ""), "\n")
}

// A setting at a wrong place, or with a wrong name, is told where it belongs.
func TestAnUnknownSettingIsToldWhereItBelongs(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		file string
		want []string
	}{
		{withURL + "issuer: https://id.example.com\nclient_id: app\n", []string{
			"curfew.yaml:2: issuer: there is no such setting; it belongs under providers, as in providers: [{issuer: …}]",
			"curfew.yaml:3: client_id: there is no such setting; it belongs under providers, as in providers: " +
				"[{client_id: …}]",
			"issuer: is missing: give --issuer, CURFEW_ISSUER, or issuer under providers in the file",
			"client_id: is missing: give --client-id, CURFEW_CLIENT_ID, or client_id under providers in the file"}},
		{complete + "deadline: 1h\n", []string{
			"curfew.yaml:3: deadline: there is no such setting; it belongs under apps, as in apps: [{deadline: …}]"}},
		{withURL + "providers:\n- {issuer: https://id.example.com, client_id: app, policy: x}\n", []string{
			"curfew.yaml:3: providers[0].policy: there is no such setting; it belongs at the top level of the file"}},
		{complete + "policy: [{path: /a, grops: [x]}]\n", []string{
			`curfew.yaml:3: policy: line 3: there is no such setting: "grops"; did you mean groups?`}},
		{complete + "look: {nme: x}\n", []string{
			`curfew.yaml:3: look: line 3: there is no such setting: "nme"; did you mean name?`}},
		{complete + "console: {requre: {g: [x]}}\n", []string{
			`curfew.yaml:3: console: line 3: there is no such setting: "requre"; did you mean require?`}},
	} {
		if got := faultsOf(t, row.file); !slices.Equal(got, row.want) {
			t.Errorf("%s: got %q, want %q", row.file, got, row.want)
		}
	}
	_, err := Load(needed(), []string{"CURFEW_ISUER=x", "CURFEW_Home=/", "CURFEW_NONSENSE=x"})
	const want = "CURFEW_Home: there is no such setting; did you mean CURFEW_HOME?\n" +
		"CURFEW_ISUER: there is no such setting; did you mean CURFEW_ISSUER?\n" +
		"CURFEW_NONSENSE: there is no such setting; docs/configuration.md lists them"
	if got := errorText(err); got != want {
		t.Errorf("got %s", got)
	}
}

func TestAFileThatIsTooLongIsNotCut(t *testing.T) {
	t.Parallel()
	text := complete + "policy_default: deny\npolicy: [{path: /a}]\n"
	comment := func(size int) string { return text + strings.Repeat("#", size-len(text)) }
	if got := faultsOf(t, comment(1<<20)); got != nil {
		t.Errorf("1 MiB: %q", got)
	}
	if got := faultsOf(t, comment(1<<20+1)); len(got) == 0 || got[0] != "curfew.yaml: has more than 1 MiB" {
		t.Errorf("one byte more: %q", got)
	}
}


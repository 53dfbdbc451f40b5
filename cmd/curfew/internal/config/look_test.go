package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Every fault of the look is told at once, with its line.
func TestTheLookIsChecked(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{"logo.svg": `<svg xmlns="http://www.w3.org/2000/svg"/>`, "text.txt": "x",
		"empty.png": "", "messages/de.json": `{"Sign in": "Anmelden"}`, "bad/de.json": `{"Sign in": "{x}"}`,
		"templates/page.css": "h1{}"} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const head = "url: http://127.0.0.1:4180\nproviders: [{issuer: https://id.example.com, client_id: app}]\nlook:\n"
	for _, row := range []struct {
		text string
		want []string
	}{
		{"  name: A\n  logo_file: DIR/logo.svg\n  messages_dir: DIR/messages\n  templates_dir: DIR/templates\n" +
			"  colors: {accent: '#123456', text: black}\n",
			[]string{`curfew.yaml:4: look: colors: text: "black" is not a colour`}},
		{"  name: A\n  logo_file: DIR/logo.svg\n  messages_dir: DIR/messages\n  templates_dir: DIR/templates\n" +
			"  colors: {accent: '#123456'}\n  colors_dark: {accent: '#abc'}\n  help: https://help.example.com\n", nil},
		{"  nmae: A\n  colors: {acent: '#123'}\n  logo_file: DIR/none.svg\n  messages_dir: DIR/text.txt\n",
			[]string{`line 4: there is no such setting: "nmae"`, `line 5: colors: line 5: there is no such setting: "acent"`,
				"line 6: logo_file: open ", "line 7: messages_dir: ", "is not a folder"}},
		{"  name: \"a\\nb\"\n  help: http://x\n  logo_file: DIR/text.txt\n  messages_dir: DIR/bad\n",
			[]string{"name: must be one line", "help: must begin with https://", "logo: is not a PNG",
				"messages: de.json: \"Sign in\": its placeholders"}},
		{"  logo_file: DIR/empty.png\n", []string{"is empty"}},
		{"  - name\n", []string{"want settings, like {name: My Company"}},
	} {
		file := writeFile(t, head+strings.ReplaceAll(row.text, "DIR", dir))
		c, err := Load(map[string]string{"config": file}, nil)
		for _, want := range row.want {
			if got := errorText(err); !strings.Contains(got, want) {
				t.Errorf("%s: the error lacks %q: %s", row.text, want, got)
			}
		}
		if len(row.want) == 0 && (err != nil || len(c.Look.Logo) == 0 || c.Look.Messages == nil || c.Look.Templates == nil) {
			t.Errorf("%s: %v", row.text, err)
		}
	}
	if _, err := Load(needed(), []string{"CURFEW_LOOK={name: A, colors: {accent: x}}"}); !strings.Contains(
		errorText(err), `CURFEW_LOOK: look: colors: accent: "x" is not a colour`) {
		t.Errorf("by the environment: %v", err)
	}
}

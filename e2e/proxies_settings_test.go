package e2e_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// The configurations of Curfew itself in deploy/ have no fault but that nobody is at the made-up provider's address.
func TestTheSettingsInDeployAreUnderstood(t *testing.T) {
	t.Parallel()
	inMap := func(text []byte) (string, error) {
		var doc struct {
			Data map[string]string `yaml:"data"`
		}
		err := yaml.Unmarshal(text, &doc) // the first document
		return doc.Data["curfew.yaml"], err
	}
	for file, find := range map[string]func([]byte) (string, error){
		"deploy/systemd/curfew.yaml":    func(text []byte) (string, error) { return string(text), nil },
		"deploy/kubernetes/curfew.yaml": inMap,
	} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile("../" + file)
			if err != nil {
				t.Fatal(err)
			}
			settings, err := find(text)
			if err != nil || settings == "" {
				t.Fatalf("holds no settings: %v", err)
			}
			g := &gateway{dir: t.TempDir()}
			g.write(t, "client_secret", "app-secret-0123456789abcdef0123456789")
			settings = strings.NewReplacer("/run/credentials/curfew.service/", g.dir+"/", "/run/secrets/app",
				g.dir+"/client_secret", "/etc/curfew/", g.dir+"/", "/var/lib/curfew/", g.dir+"/",
				"https://id.example.com", "http://"+reserve(t)).Replace(settings)
			settings, others, _ := strings.Cut(settings, "---\n")
			for _, other := range strings.Split(others, "---\n") {
				g.flags = []string{"--config", g.write(t, "curfew.yaml",
					strings.ReplaceAll(settings+other, "…", "127.0.0.1:3001"))}
				status, out := g.run(t, "", "check")
				says(t, "check with "+other, status, 1, out,
					"not checked back-channel URL https://app.example.com/auth/backchannel-logout", "fault discovery",
					"1 fault, 0 warnings")
			}
		})
	}
}

func TestTheManifestsInDeployAreYAMLWithoutDoubles(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../deploy/*/*.yaml")
	if err != nil || len(files) < 8 {
		t.Fatalf("found %q, %v", files, err)
	}
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		in := yaml.NewDecoder(f)
		for {
			var doc any // a key that is there twice is an error
			if err := in.Decode(&doc); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Errorf("%s: %v", file, err)
				break
			}
		}
		f.Close()
	}
}

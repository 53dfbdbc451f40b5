package e2e_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The manifests in deploy/ meet the schemas of Kubernetes, without a field that it does not know.
func TestTheManifestsMeetTheSchemasOfKubernetes(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("manifests/pip/kubernetes_validate"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("kubernetes-validate is missing: .ci/deps installs it")
		}
		t.Skip("NOT TESTED: the manifests against the schemas: .ci/deps installs kubernetes-validate")
	}
	files, err := filepath.Glob("../deploy/kubernetes/*.yaml")
	if err != nil || len(files) < 4 {
		t.Fatalf("found %q, %v", files, err)
	}
	validate := func(files ...string) (string, error) {
		cmd := exec.Command("python3", append([]string{"-m", "kubernetes_validate", "--strict"}, files...)...)
		cmd.Env = append(os.Environ(), "PYTHONPATH=manifests/pip", "PYTHONDONTWRITEBYTECODE=1")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for _, file := range files {
		if filepath.Base(file) == "kustomization.yaml" { // no object of Kubernetes itself
			continue
		}
		if out, err := validate(file); err != nil {
			t.Errorf("%s: %v\n%s", file, err, out)
		}
	}
	text, err := os.ReadFile("../deploy/kubernetes/curfew.yaml")
	if err != nil {
		t.Fatal(err)
	}
	wrong := filepath.Join(t.TempDir(), "wrong.yaml")
	misspelt := strings.ReplaceAll(string(text), "serviceAccountName:", "serviceAcountName:")
	if err := os.WriteFile(wrong, []byte(misspelt), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := validate(wrong); err == nil {
		t.Errorf("a misspelt field is not found: %s", out)
	}
}

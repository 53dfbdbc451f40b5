package e2e_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// renderChart renders the Helm chart in deploy/ with Helm's own library. The error is what Helm said.
func renderChart(t *testing.T, values map[string]any) (string, error) {
	t.Helper()
	if _, err := os.Stat("helm/pip/helm_python"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("helm-python-sdk is missing: .ci/deps installs it")
		}
		t.Skip("NOT TESTED: the Helm chart: .ci/deps installs helm-python-sdk")
	}
	text, err := json.Marshal(values)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "values.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "python3", "helm/render.py", "../deploy/helm", file)
	cmd.Env = append(os.Environ(), "PYTHONPATH=helm/pip", "PYTHONDONTWRITEBYTECODE=1")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", errors.New(stderr.String())
	}
	return stdout.String(), nil
}

// leastValues are the values without which there is nothing to install.
func leastValues() map[string]any {
	return map[string]any{
		"image": map[string]any{"repository": "registry.example.com/curfew"},
		"config": map[string]any{"url": "https://app.example.com", "upstream": "http://app.default.svc.cluster.local",
			"forward_auth": false,
			"providers": []any{map[string]any{"name": "main", "issuer": "https://id.example.com", "client_id": "app",
				"client_secret_file": "/etc/curfew/client_secret"}}},
	}
}

// kubeObject is an object of Kubernetes.
type kubeObject map[string]any

func (o kubeObject) at(path ...any) any {
	var v any = map[string]any(o)
	for _, p := range path {
		switch p := p.(type) {
		case string:
			m, _ := v.(map[string]any)
			if o, ok := v.(kubeObject); ok {
				m = o
			}
			v = m[p]
		case int:
			list, _ := v.([]any)
			if p >= len(list) {
				return nil
			}
			v = list[p]
		}
	}
	return v
}

func objects(t *testing.T, rendered string) map[string]kubeObject {
	t.Helper()
	all := map[string]kubeObject{}
	for in := yaml.NewDecoder(strings.NewReader(rendered)); ; {
		var o map[string]any
		err := in.Decode(&o)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, rendered)
		}
		if o != nil {
			kind, _ := o["kind"].(string)
			name, _ := kubeObject(o).at("metadata", "name").(string)
			all[kind+"/"+name] = o
		}
	}
}

// The chart renders what the manifests in deploy/kubernetes are, and as securely.
func TestTheChartIsAsSecureAsTheManifests(t *testing.T) {
	t.Parallel()
	rendered, err := renderChart(t, leastValues())
	if err != nil {
		t.Fatal(err)
	}
	chart := objects(t, rendered)
	want := []string{"ConfigMap/curfew", "Deployment/curfew", "NetworkPolicy/curfew", "PodDisruptionBudget/curfew",
		"Service/curfew", "ServiceAccount/curfew"}
	if have := slices.Sorted(maps.Keys(chart)); !slices.Equal(have, want) {
		t.Errorf("rendered %q, want %q", have, want)
	}
	text, err := os.ReadFile("../deploy/kubernetes/curfew.yaml")
	if err != nil {
		t.Fatal(err)
	}
	plain := objects(t, string(text))["Deployment/curfew"]
	deployment := chart["Deployment/curfew"]
	pod := []any{"spec", "template", "spec"}
	for _, path := range [][]any{
		{"securityContext"}, {"automountServiceAccountToken"}, {"enableServiceLinks"}, {"terminationGracePeriodSeconds"},
		{"containers", 0, "securityContext"}, {"containers", 0, "args"}, {"containers", 0, "ports"},
		{"containers", 0, "startupProbe"}, {"containers", 0, "readinessProbe"}, {"containers", 0, "livenessProbe"},
		{"containers", 0, "lifecycle"}, {"containers", 0, "resources"}, {"containers", 0, "env"},
		{"containers", 0, "volumeMounts"}, {"volumes"},
	} {
		path = append(slices.Clone(pod), path...)
		have, want := deployment.at(path...), plain.at(path...)
		a, _ := json.Marshal(have)
		b, _ := json.Marshal(want)
		if want == nil || !bytes.Equal(a, b) {
			t.Errorf("%v is %s, and in deploy/kubernetes %s", path, a, b)
		}
	}
	ports := chart["NetworkPolicy/curfew"].at("spec", "ingress", 0, "ports", 0, "port")
	if ports != "http" || chart["NetworkPolicy/curfew"].at("spec", "ingress", 1) != nil {
		t.Errorf("the private listener is reached by others: %v", chart["NetworkPolicy/curfew"])
	}
	config, _ := chart["ConfigMap/curfew"].at("data", "curfew.yaml").(string)
	dir := t.TempDir()
	for _, line := range []string{"admin_listen: :4181\n", "forward_auth: false\n", "issuer: https://id.example.com\n",
		"url: https://app.example.com\n"} {
		if !strings.Contains(config, line) {
			t.Errorf("no %q in the configuration:\n%s", line, config)
		}
	}
	validateChart(t, dir, rendered)
}

// validateChart compares the objects of Kubernetes itself with its schemas.
func validateChart(t *testing.T, dir, rendered string) {
	t.Helper()
	if _, err := os.Stat("manifests/pip/kubernetes_validate"); err != nil {
		t.Log("NOT TESTED: the chart against the schemas: .ci/deps installs kubernetes-validate")
		return
	}
	var own []string
	for doc := range strings.SplitSeq(rendered, "---\n") {
		if !strings.Contains(doc, "monitoring.coreos.com") {
			own = append(own, doc)
		}
	}
	file := filepath.Join(dir, "rendered.yaml")
	if err := os.WriteFile(file, []byte(strings.Join(own, "---\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "python3", "-m", "kubernetes_validate", "--strict", file)
	cmd.Env = append(os.Environ(), "PYTHONPATH=manifests/pip", "PYTHONDONTWRITEBYTECODE=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("kubernetes-validate: %v\n%s", err, out)
	}
}

func TestTheChartWithAllThatCanBeAsked(t *testing.T) {
	t.Parallel()
	values := leastValues()
	digest := "sha256:" + strings.Repeat("a", 64)
	maps.Copy(values, map[string]any{
		"image":            map[string]any{"repository": "registry.example.com/curfew", "digest": digest},
		"imagePullSecrets": []any{map[string]any{"name": "registry"}}, "replicas": 1,
		"ingress": map[string]any{"enabled": true, "className": "nginx", "hosts": []any{"app.example.com"},
			"tlsSecret": "app-tls", "annotations": map[string]any{"a": "b"}},
		"networkPolicy": map[string]any{"private": []any{map[string]any{"podSelector": map[string]any{}}},
			"egress": []any{map[string]any{"ports": []any{map[string]any{"port": 443}}}}},
		"serviceMonitor": map[string]any{"enabled": true, "labels": map[string]any{"release": "prometheus"}},
		"extraEnv":       []any{map[string]any{"name": "CURFEW_TRACES", "value": "otlp"}},
		"podAnnotations": map[string]any{"x": "y"}, "nodeSelector": map[string]any{"disk": "fast"},
		"tolerations": []any{map[string]any{"key": "k", "operator": "Exists"}},
		"affinity":    map[string]any{"nodeAffinity": map[string]any{}},
	})
	rendered, err := renderChart(t, values)
	if err != nil {
		t.Fatal(err)
	}
	all := objects(t, rendered)
	if all["Deployment/curfew"].at("spec", "template", "spec", "containers", 0, "image") !=
		"registry.example.com/curfew@"+digest {
		t.Errorf("the image is %v", all["Deployment/curfew"].at("spec", "template", "spec", "containers", 0, "image"))
	}
	if all["PodDisruptionBudget/curfew"] != nil {
		t.Error("a budget for one replica would hold up every drain of a node")
	}
	if all["Ingress/curfew"].at("spec", "tls", 0, "secretName") != "app-tls" ||
		all["ServiceMonitor/curfew"].at("spec", "endpoints", 0, "port") != "admin" ||
		all["NetworkPolicy/curfew"].at("spec", "ingress", 1, "ports", 0, "port") != "admin" ||
		all["NetworkPolicy/curfew"].at("spec", "policyTypes", 1) != "Egress" {
		t.Errorf("rendered:\n%s", rendered)
	}
	validateChart(t, t.TempDir(), rendered)
}

// What is missing or misspelt is told before anything is installed.
func TestTheChartRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		change func(map[string]any)
		want   string
	}{
		"no image": {func(v map[string]any) { delete(v, "image") }, "repository"},
		"no providers": {func(v map[string]any) { v["config"].(map[string]any)["providers"] = []any{} },
			"providers"},
		"plain http": {func(v map[string]any) { v["config"].(map[string]any)["url"] = "http://app.example.com" }, "url"},
		"the store, which has a password, in the ConfigMap": {func(v map[string]any) {
			v["config"].(map[string]any)["store"] = "redis://:p@redis"
		}, "store"},
		"an unknown value": {func(v map[string]any) { v["replica"] = 3 }, "replica"},
		"an Ingress without TLS": {func(v map[string]any) {
			v["ingress"] = map[string]any{"enabled": true, "hosts": []any{"app.example.com"}}
		}, "tlsSecret"},
	} {
		values := leastValues()
		row.change(values)
		rendered, err := renderChart(t, values)
		if err == nil || !regexp.MustCompile(`(?i)`+row.want).MatchString(err.Error()) {
			t.Errorf("%s: %v\n%.300s", name, err, rendered)
		}
	}
}

package main

import (
	"encoding/json"
	"fmt"
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

const deployDir = "../../deploy"

// alertRule is a rule of a file of rules of Prometheus.
type alertRule struct {
	Alert       string            `yaml:"alert,omitempty"`
	Record      string            `yaml:"record,omitempty"`
	Expr        string            `yaml:"expr"`
	Labels      map[string]string `yaml:"labels,omitempty"`
	Annotations map[string]string `yaml:"annotations,omitempty"`
}

type ruleFile struct {
	Groups []ruleGroup `yaml:"groups"`
}

type ruleGroup struct {
	Name  string      `yaml:"name"`
	Rules []alertRule `yaml:"rules"`
}

func alertRules(t *testing.T) []alertRule {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(deployDir, "prometheus", "curfew.rules.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var f ruleFile
	if err := yaml.Unmarshal(text, &f); err != nil || len(f.Groups) == 0 {
		t.Fatalf("%v: %d groups", err, len(f.Groups))
	}
	return f.Groups[0].Rules
}

// panelQuery is a query of the dashboard.
type panelQuery struct{ Expr, LegendFormat string }

// panelQueries returns the queries of the dashboard by the title of their panel.
func panelQueries(t *testing.T) map[string][]panelQuery {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(deployDir, "grafana", "curfew.json"))
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Title  string
		Panels []struct {
			ID      int
			Type    string
			Title   string
			GridPos struct{ H, W, X, Y int }
			Targets []panelQuery
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	queries, ids := map[string][]panelQuery{}, map[int]bool{}
	for _, p := range dashboard.Panels {
		if ids[p.ID] || p.Title == "" || p.GridPos.X+p.GridPos.W > 24 || (p.Type == "row") != (len(p.Targets) == 0) {
			t.Errorf("panel %d %q: its ID or title, its place, or its queries are not right", p.ID, p.Title)
		}
		ids[p.ID] = true
		if len(p.Targets) > 0 {
			queries[p.Title] = append(queries[p.Title], p.Targets...)
		}
	}
	if len(queries) < 15 {
		t.Errorf("the dashboard has %d panels", len(queries))
	}
	return queries
}

// Whoever renames a metric or a label changes the alerts and the dashboard too, or this fails.
func TestEveryMetricAndLabelOfTheAlertsAndTheDashboardIsServed(t *testing.T) {
	t.Parallel()
	config := writeFile(t, "url: http://127.0.0.1:4180\nstore: 'sqlite:"+filepath.Join(t.TempDir(), "m.db")+"'\n"+
		"providers:\n  - {issuer: 'http://127.0.0.1:9', client_id: app}\n"+
		"apps:\n  - {client_id: wiki, backchannel_logout_uri: 'http://127.0.0.1:9/wiki'}\n")
	g := startGateway(t, "--config", config)
	_, text := g.get(t, g.private+"/metrics")
	types := map[string]string{"up": "gauge"} // Prometheus itself has that
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)$`).FindAllStringSubmatch(text, -1) {
		types[m[1]] = m[2]
	}
	documented, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	for name := range types {
		if strings.HasPrefix(name, "curfew_") && !strings.Contains(string(documented), "`"+name) {
			t.Errorf("docs/metrics.md does not mention %s", name)
		}
	}
	named := regexp.MustCompile(`\b(?:curfew|process|go)_[a-z_]+\b|\bup\b`)
	labelled := servedLabels(t, text)
	check := func(where, expr, shown string) {
		for _, fault := range labelFaults(expr, shown, labelled) {
			t.Errorf("%s: %s", where, fault)
		}
		quoted := regexp.MustCompile(`"[^"]*"`).ReplaceAllString(expr, `""`)
		names := named.FindAllString(quoted, -1)
		if len(names) == 0 {
			t.Errorf("%s names no metric: %s", where, expr)
		}
		for _, name := range names {
			base := name
			for _, suffix := range []string{"_bucket", "_count", "_sum"} {
				if b, ok := strings.CutSuffix(name, suffix); ok && types[b] == "histogram" {
					base = b
				}
			}
			if types[base] == "" {
				t.Errorf("%s: there is no metric %s", where, name)
			}
		}
	}
	for _, r := range alertRules(t) {
		check(r.Alert, r.Expr, strings.Join(slices.Collect(maps.Values(r.Annotations)), " "))
	}
	for panel, queries := range panelQueries(t) {
		for _, q := range queries {
			check(panel, q.Expr, q.LegendFormat)
			for _, s := range selector.FindAllString(q.Expr, -1) {
				if !strings.Contains(s, `{job="$job"`) {
					t.Errorf("%s: %s is of every job, not of the one that was chosen", panel, s)
				}
			}
		}
	}
}

// An alert that says nothing of what to do is noise.
func TestEveryAlertLinksToWhatToDo(t *testing.T) {
	t.Parallel()
	for _, r := range alertRules(t) {
		page, anchor, _ := strings.Cut(r.Annotations["runbook"], "#")
		text, err := os.ReadFile(filepath.Join("../..", filepath.FromSlash(page)))
		if err != nil || r.Annotations["summary"] == "" || r.Labels["severity"] == "" {
			t.Errorf("%s: %v, or it has no summary or severity", r.Alert, err)
		}
		found := false
		for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(string(text), -1) {
			plain := regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(m[1]), "")
			found = found || strings.ReplaceAll(plain, " ", "-") == anchor
		}
		if !found {
			t.Errorf("%s: %s has no section #%s", r.Alert, page, anchor)
		}
	}
}

func TestPrometheusLoadsTheAlertsAndTheQueriesOfTheDashboard(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("promtool"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("promtool is missing, and with CI=true that is a failure")
		}
		t.Skip("NOT TESTED: promtool is missing, so the alerts are not loaded")
	}
	queries := ruleFile{Groups: []ruleGroup{{Name: "dashboard"}}}
	n := 0
	for _, all := range panelQueries(t) {
		for _, q := range all {
			n++
			expr := strings.NewReplacer("$__rate_interval", "5m", "$instance", "a", "$job", "curfew").Replace(q.Expr)
			queries.Groups[0].Rules = append(queries.Groups[0].Rules, alertRule{Record: fmt.Sprintf("q:%d", n), Expr: expr})
		}
	}
	text, err := yaml.Marshal(queries)
	if err != nil {
		t.Fatal(err)
	}
	dashboard := writeFile(t, string(text))
	for _, args := range [][]string{{"check", "rules", "curfew.rules.yaml"}, {"test", "rules", "curfew.rules.test.yaml"},
		{"check", "config", "prometheus.yaml"}, {"check", "rules", dashboard}} {
		cmd := exec.CommandContext(t.Context(), "promtool", args...)
		cmd.Dir = filepath.Join(deployDir, "prometheus")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// A package that the ignore file keeps from the build breaks it, which nothing else here would notice.
func TestTheImageIsBuiltFromAllPackages(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(deployDir, "Dockerfile.dockerignore"))
	if err != nil {
		t.Fatal(err)
	}
	let := strings.Split(string(text), "\n")
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f",
		"{{with .Module}}{{if .Main}}{{$.Dir}}{{end}}{{end}}", ".")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	top, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	need := []string{"go.mod", "go.sum"}
	for dir := range strings.FieldsSeq(string(out)) {
		below, err := filepath.Rel(top, dir)
		if err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(filepath.ToSlash(below), "/")
		if first == "." {
			first = "*.go"
		}
		need = append(need, first)
	}
	slices.Sort(need)
	for _, name := range slices.Compact(need) {
		if !slices.Contains(let, "!"+name) {
			t.Errorf("the build needs %s, which Dockerfile.dockerignore keeps from it", name)
		}
	}
	if len(need) < 10 {
		t.Errorf("go list names %d", len(need))
	}
}
